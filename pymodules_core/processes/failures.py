"""Which of several processes failed first: that one tells why, and all others end in silence.

They know by the store through which they found each other. With torchrun it usually lives in the
launcher and outlives them; else in the first process, and where that is gone nobody has to tell.
"""

import json

import attrs
import torch.distributed as dist

from pymodules_core.errors import ProcessLostError, PymodulesError, RankFailedError

_KEY = "pymodules/failure"
# What gloo and NCCL say where another process is gone; torch has no class for it.
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection refused",
    "Socket Timeout",
    "NCCL communicator was aborted",
    "remote process exited",
    "Connection was likely closed",
)


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
        """Give what the other processes raise."""
        error = RankFailedError(
            f"process {self.rank} failed: {self.text}",
            found=self.rank,
            fix=f"see what process {self.rank} says",
        )
        error.exit_code = self.exit_code
        return error


def first_failure(rank: int, error: BaseException) -> BaseException:
    """Say that a process failed, and give what it should raise.

    Args:
        rank: The process.
        error: What it failed with.

    Returns:
        ``error`` where it is the first to fail; ``ProcessLostError`` in its place where all that
        is known is that another one is gone; else ``RankFailedError``.
    """
    told = _lost_process(error) or error
    own = Failure.of(rank, told)
    try:
        store = dist.distributed_c10d._get_default_store()
        first = Failure(**json.loads(store.compare_set(_KEY, "", json.dumps(attrs.asdict(own)))))
    except (RuntimeError, ValueError, TypeError):  # the store is gone, and with it who had it
        first = Failure(rank=0, text="it is gone", exit_code=1) if told is not error else own
    return told if first.rank == rank else first.as_error()


def _lost_process(error: BaseException) -> ProcessLostError | None:
    """Give what to say where an error is of a broken connection to another process."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, RuntimeError) and any(text in str(found) for text in _LOST):
            return ProcessLostError(
                "another process of the run is gone: it was killed, or its machine failed",
                found=str(found),
                fix="the launcher says which; --resume goes on from the newest commit",
            )
        found = found.__cause__ or found.__context__
    return None
