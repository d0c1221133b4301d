"""What the command says on standard error: warnings, errors, where in the user's code they began.

Of several processes one says each thing: which one is decided here, and how torchrun hears of it.
"""

import errno
import json
import logging
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import click

from pymodules_core.checkpoints.store.disk_errors import remedy
from pymodules_core.cli.output import say
from pymodules_core.errors import (
    ProcessLostError,
    PymodulesError,
    RankFailedError,
    RunInterruptedError,
    display_path,
)
from pymodules_core.processes.environment import LOST_EXIT_CODE, RankInfo, is_elastic, is_own
from pymodules_core.processes.failure_notice import mark_reported, wait_until_reported

INTERRUPTED_EXIT_CODE = 130
_PACKAGE = str(Path(__file__).parents[1])
_NAME = __name__.partition(".")[0]


class WarningHandler(logging.Handler):
    """Prints log records of this package as ``warning: ...`` on standard error."""

    _said = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, unless it says what the one before has said."""
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        if text == self._said:
            return
        self._said = text
        if record.exc_info and logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            text += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        say(text)


def report_error(error: BaseException, ranks: RankInfo, *, is_debug: bool) -> int:
    """Say what ended the command, unless another process says it, and return the exit code.

    Args:
        error: Any but ``SystemExit``.
        ranks: Which of several processes this is.
        is_debug: Show every frame, and in each process why it ends.
    """
    if isinstance(error, RunInterruptedError):
        if ranks.is_first:
            say(f"{error}")
        # torchrun would take anything else for a failure, and start the run again.
        return 0 if is_elastic() else error.exit_code
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        if ranks.is_first and not is_own():  # else its launcher says so
            say("interrupted")
        return INTERRUPTED_EXIT_CODE
    if isinstance(error, click.ClickException):
        if ranks.local_rank == 0:  # the others of this machine have the same command line
            with suppress(OSError):
                error.show()
        return error.exit_code
    if isinstance(error, RankFailedError):
        if is_debug:
            say(f"process {ranks.rank} ends: {error}")
        wait_until_reported()
        return error.exit_code
    exit_code = _report_failure(error, ranks, is_debug=is_debug)
    mark_reported()
    return exit_code


def _report_failure(error: BaseException, ranks: RankInfo, *, is_debug: bool) -> int:
    if not isinstance(error, ProcessLostError):  # a consequence, and reported before its cause
        _record_for_torchrun(error)
    if isinstance(error, PymodulesError):
        # Which process is lost, and how, is known to the launcher.
        if is_debug or error.exit_code != LOST_EXIT_CODE:
            _echo_error(str(error), ranks)
            _echo_user_frames(error, is_debug=is_debug)
        return error.exit_code
    text = _broken_import(error)
    if text is None and isinstance(error, OSError):
        # Not writable, a file where a folder belongs: the machine's state, no bug of ours.
        text = _text_of(error)
    if text is None:
        # The last resort: a bug of ours is said to be one.
        say("".join(traceback.format_exception(error)).rstrip())
        text = "this is a bug in pymodules; please report it with the lines above"
        is_debug = False
    _echo_error(text, ranks)
    if is_debug:
        say("".join(traceback.format_exception(error)).rstrip())
    return 1


def _broken_import(error: BaseException) -> str | None:
    """Say what this package needs and cannot import; None for any other error.

    An installation of torch that does not fit the machine raises anything where it is imported.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.line or "" for frame in frames if frame.filename.startswith(_PACKAGE)]
    words = own[-1].split() if own else []
    if len(words) < 2 or words[0] not in {"from", "import"} or words[1].startswith(_NAME):
        return None
    name = words[1].partition(".")[0]
    fix = "take from PYTHONPATH what is called like it, or like what it needs"
    if name not in sys.stdlib_module_names:
        fix = f"install {name} again, or {fix}"
    reason = f"{name} cannot be imported: {type(error).__name__}: {error}"
    return f"{reason}\n  fix: {fix}  (--debug shows every frame)"


def _echo_error(text: str, ranks: RankInfo) -> None:
    where = f"process {ranks.rank}: " if ranks.rank else ""
    say(f"error: {where}{text}")


def _text_of(error: OSError) -> str:
    reason, fix = error.strerror or str(error), remedy(error)
    if isinstance(error, PermissionError):
        fix = "make it readable and writable"
    if error.filename:
        reason = f"{display_path(Path(error.filename))}: {reason}"
        return f"{reason}\n  fix: {fix}, or choose another folder"
    # Files have names: this is standard output, or the working directory, which was removed.
    if error.errno == errno.ENOENT:
        reason, fix = "the working directory is gone", "go to another folder"
    elif error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}:
        reason = f"standard output: {reason}"
    return f"{reason}\n  fix: {fix}"


def _record_for_torchrun(error: BaseException) -> None:
    """Let torchrun's summary show the error: it reads a file of this form.

    Without torch, which need not be imported: what ``torch.distributed.elastic`` writes.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    facts = {"py_callstack": str(error), "timestamp": str(int(time.time()))}
    message = {"message": f"{type(error).__name__}: {error}", "extraInfo": facts}
    with suppress(OSError):
        Path(path).write_text(json.dumps({"message": message}), "utf-8")


def _echo_user_frames(error: PymodulesError, *, is_debug: bool) -> None:
    """Show where in the user's own code an error began; everything with ``--debug``."""
    cause = error.__cause__
    if is_debug:
        say("".join(traceback.format_exception(error)).rstrip())
        return
    if cause is None or isinstance(cause, PymodulesError):
        return
    libraries = (_PACKAGE, sys.prefix, sys.base_prefix, "<frozen")
    frames = [
        frame
        for frame in traceback.extract_tb(cause.__traceback__)
        if not frame.filename.startswith(libraries)
    ]
    if frames:
        say("".join(traceback.format_list(frames)).rstrip())
        say(f"{type(cause).__name__}: {cause}  (--debug shows every frame)")
