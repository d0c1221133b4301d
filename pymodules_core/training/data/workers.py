"""Worker processes that end in the middle of an epoch: what of it torch does not say.

The main process sees one of several errors, of a connection or a missing file among them; torch's
handler of SIGCHLD raises its own wherever the main thread is.
"""

import re
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from pymodules_core.errors import StepError

_LOST = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)")
# What an item raises in a worker that keeps running; torch raises it again, of the same class.
_OF_AN_ITEM = re.compile(r"Caught \w+ in ")
# A worker is not gone yet when its connection is; on a machine that is busy not for seconds.
_PATIENCE_S = 10.0


def read_from_workers(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the batches of a loader with workers.

    Raises:
        StepError: One of them is gone; the error names how it ended.
    """
    try:
        yield from batches
    except Exception as error:
        lost = lost_worker(error, getattr(batches, "_workers", ()))
        if lost is None:
            raise
        raise lost from error


def lost_worker(error: BaseException, workers: Sequence[BaseProcess] = ()) -> StepError | None:
    """Return an error that names how a worker ended, where another error comes from that.

    Args:
        error: What was raised.
        workers: The workers, where they are known.
    """
    found = _LOST.match(str(error)) if isinstance(error, RuntimeError) else None
    is_broken = isinstance(error, OSError | EOFError) and not _OF_AN_ITEM.match(str(error))
    if not found and not (is_broken and workers):
        return None
    code = _exit_code(workers)
    return None if code is None and not found else _lost_error(code)


def _exit_code(workers: Sequence[BaseProcess]) -> int | None:
    """Return what the workers ended with that are gone; None where none is."""
    gone = wait([worker.sentinel for worker in workers], timeout=_PATIENCE_S)
    for worker in workers:
        if worker.sentinel in gone:
            worker.join(_PATIENCE_S)  # how it ended is known a moment later
    codes = [worker.exitcode for worker in workers if worker.exitcode is not None]
    return max(codes, key=abs, default=None)


def _lost_error(code: int | None) -> StepError:
    how = "was killed" if code is None else f"ended with exit code {code}"
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    fix = "look for what ends it; with num_workers = 0 the main process reads the data"
    if code in {None, -signal.SIGKILL, -signal.SIGBUS}:
        fix = "workers that take too much memory are killed: use fewer, or num_workers = 0"
    return StepError(f"a DataLoader worker {how}", found=code, fix=fix)
