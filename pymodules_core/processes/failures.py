"""Which of several processes failed first: only that one reports why, the others exit quietly.

They know by the store through which they found each other. With torchrun it usually lives in the
launcher and outlives them; else in the first process, and where that is gone nobody reports.
"""

import json

import attrs
import torch.distributed as dist

from pymodules_core.errors import ProcessLostError, PymodulesError, RankFailedError
from pymodules_core.processes.environment import LOST_EXIT_CODE, is_own
from pymodules_core.processes.failure_notice import common_key, common_store

# torch has no class for what gloo and NCCL say where another process is gone.
_LOST = (
    "gloo/transport/",  # the source file, in front of "Connection closed by peer" and its like
    "Gloo connectFullMesh failed",
    "NCCL communicator was aborted",
    "remote process exited",
)
_TIMED_OUT = ("Timed out waiting", "Application timeout", "Watchdog caught collective operation")


@attrs.frozen(kw_only=True)
class Failure:
    """What one process failed with.

    Attributes:
        rank: Which one.
        text: What went wrong.
        exit_code: What the command ends with.
    """

    rank: int
    text: str
    exit_code: int

    @classmethod
    def of(cls, rank: int, error: BaseException) -> "Failure":
        """Describe an error of a process."""
        if isinstance(error, PymodulesError):
            return cls(rank=rank, text=error.what, exit_code=error.exit_code)
        reason = ": ".join(filter(None, (type(error).__name__, str(error))))
        return cls(rank=rank, text=reason, exit_code=1)

    def as_error(self) -> RankFailedError:
        """Return what the other processes raise."""
        error = RankFailedError(
            f"process {self.rank} failed: {self.text}",
            found=self.rank,
            fix=f"see what process {self.rank} says",
        )
        error.exit_code = self.exit_code
        return error


def first_failure(rank: int, error: BaseException) -> BaseException:
    """Record that a process failed, and return what it should raise.

    Args:
        rank: The process.
        error: What it failed with.

    Returns:
        ``error`` where it is the first to fail; ``ProcessLostError`` in its place where all that
        is known is that another one is gone; else ``RankFailedError``.
    """
    own = _lost_process(error) or error
    first = _first(Failure.of(rank, own), is_lost=own is not error)
    return own if first.rank == rank else first.as_error()


def _first(own: Failure, *, is_lost: bool) -> Failure:
    """Return the first failure of all processes: ``own`` where no other one is recorded."""
    try:
        first = common_store().compare_set(common_key("first"), "", json.dumps(attrs.asdict(own)))
        return Failure(**json.loads(first))
    except (RuntimeError, ValueError, TypeError):  # the store is gone, and with it who had it
        if own.rank == 0 or not is_lost:
            return own
        return Failure(rank=0, text="it is gone", exit_code=_lost_exit_code())


def _lost_process(error: BaseException) -> ProcessLostError | None:
    """Return what to raise where an error is of a broken connection to another process."""
    found: BaseException | None = error
    while found is not None:
        text = str(found)
        is_of_torch = isinstance(found, RuntimeError)
        if is_of_torch and any(part in text for part in _TIMED_OUT):
            return ProcessLostError(
                "another process of the run does not answer: it hangs, or waits for something else",
                found=text,
                fix="look where it is (py-spy dump --pid …); --resume resumes from the latest "
                "commit",
            )
        if isinstance(found, dist.DistNetworkError) or (
            is_of_torch and any(part in text for part in _LOST)
        ):
            lost = ProcessLostError(
                "another process of the run is gone: it was killed, or its machine failed",
                found=text,
                fix="the launcher says which; --resume resumes from the latest commit",
            )
            lost.exit_code = _lost_exit_code()
            return lost
        found = found.__cause__ or found.__context__
    return None


def _lost_exit_code() -> int:
    return LOST_EXIT_CODE if is_own() else ProcessLostError.exit_code
