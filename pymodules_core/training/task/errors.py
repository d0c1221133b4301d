"""Errors of the task's code: with the file and line they come from, and what to do."""

import re
from collections.abc import Callable
from pathlib import Path

import attrs

from pymodules_core.discovery.scan.import_files import fix_of_import, place_in_folder
from pymodules_core.errors import PymodulesError
from pymodules_core.training.data.workers import lost_worker

_WORKER_ERROR = re.compile(
    r"^Caught (?P<type>\w+) in DataLoader worker process "
    r"[\s\S]*\n(?:[\w.]+\.)?(?P<reason>(?P=type)(?:: [\s\S]*)?)$"
)
# What torch says, and what helps in a step or a hook.
_FIXES = {
    "some parameters appear in more than one parameter group": "add a group once: a resumed run "
    "has those that were added before it stopped. The hook weights_ready is called once a run, "
    "run_started in each process",
    "backward through the graph a second time": "compute it again in the block that uses it: the "
    "block of another optimizer, or an earlier step, has freed its graph",
    "modified by an inplace operation": "compute it again after what changed it; the end of a "
    "run.optimize block updates weights, and a graph through them from before is of no use",
}
_FRAME = re.compile(r'File "(?P<file>[^"\n]+)", line (?P<line>\d+)')


@attrs.define(eq=False, repr=False)
class TaskErrors:
    """The context of ``Task.errors``.

    A class, because ``contextlib`` lets the ``StopIteration`` of a task's ``next(...)`` through
    where it is turned into a ``RuntimeError``, which ``StepError`` is.

    Args:
        file: The task's file.
        first_line: Returns the line of the function's ``def``.
        where: The function.
        kind: The error around its own.
        note: Gives what is added to the message.
    """

    _file: Path
    _first_line: Callable[[], int | None]
    _where: str
    _kind: type[PymodulesError]
    _note: Callable[[], str]

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception | SystemExit):
            return
        if lost := lost_worker(error):  # raised by torch in whatever was at hand
            lost.what += self._note()
            raise lost from error
        folder = self._file.absolute().parent
        file, line = place_in_folder(error, folder, otherwise=self._file)
        line = line or self._first_line()
        if isinstance(error, PymodulesError):
            if error.file is None:
                error.file, error.line = file, line
            error.what += self._note()
            return
        reason = ": ".join(filter(None, (type(error).__name__, str(error))))
        if found := _WORKER_ERROR.search(str(error)):
            # torch puts a whole traceback into the message: its last frame and line are enough.
            reason = f"{found['reason'].rstrip()} (in a DataLoader worker)"
            frames = [f for f in _FRAME.finditer(str(error)) if f["file"].startswith(str(folder))]
            if frames:
                file, line = Path(frames[-1]["file"]), int(frames[-1]["line"])
        raise self._kind(
            f"{self._where} raises {reason}{self._note()}",
            file=file,
            line=line,
            fix=fix_of_import(error, folder) or _fix_in_run(error, self._where),
        ) from error


def _fix_in_run(error: BaseException, where: str) -> str | None:
    """Return what to do about errors of torch in a step or hook; None for others."""
    if where == "optimizers":
        return None
    return next((fix for text, fix in _FIXES.items() if text in str(error)), None)
