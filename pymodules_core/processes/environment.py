"""What a launcher such as torchrun passes to a process in its environment."""

import os
from collections.abc import Mapping

import attrs

from pymodules_core.errors import ProcessesError

# A second signal of a person comes later than that which a scheduler sends to all processes.
SECOND_SIGNAL_AFTER_S = 2.0
# What a process ends with that only knows that another one is gone: its launcher knows more.
LOST_EXIT_CODE = 3
# How the launcher of this package calls what it starts.
OWN_RUN_ID = "pymodules-"


@attrs.frozen(kw_only=True)
class RankInfo:
    """Which of the processes that were launched together this is.

    Attributes:
        rank: Its number among all, from 0.
        local_rank: Its number among those of its machine.
        size: How many there are.
        local_size: How many there are on its machine.
        restarts: How often torchrun has restarted them.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    local_size: int = 1
    restarts: int = 0

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and prints."""
        return self.rank == 0

    @property
    def rng_key(self) -> tuple[int, ...]:
        """What makes random streams differ by process: nothing for the first, as if alone."""
        return (self.rank,) if self.rank else ()


def rank_info(environment: Mapping[str, str] = os.environ) -> RankInfo:
    """Read what torchrun, or any launcher that sets the same variables, says of this process.

    Raises:
        ProcessesError: One of the variables is not a number, or they contradict each other.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return RankInfo()
    rank, size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if not 0 <= rank < size:
        raise ProcessesError(
            f"RANK is {rank} and WORLD_SIZE {size}, expected a rank from 0 to {size - 1}",
            found=rank,
            fix="start the processes with torchrun, or pymodules train --nproc",
        )
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing and size > 1:
        raise ProcessesError(
            f"WORLD_SIZE is {size}, and {' and '.join(missing)} not set: the processes cannot "
            "find each other",
            found=size,
            fix="start the processes with torchrun, or pymodules train --nproc",
        )
    return RankInfo(
        rank=rank,
        size=size,
        local_rank=_number(environment, "LOCAL_RANK", rank),
        local_size=_number(environment, "LOCAL_WORLD_SIZE", size),
        restarts=_number(environment, "TORCHELASTIC_RESTART_COUNT", 0),
    )


def is_elastic(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether torchrun, or the launcher of this package, waits for this process.

    It takes every exit code but 0 for a failure.
    """
    return "TORCHELASTIC_RUN_ID" in environment


def is_own(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the launcher of this package waits for this process."""
    return environment.get("TORCHELASTIC_RUN_ID", "").startswith(OWN_RUN_ID)


def _number(environment: Mapping[str, str], name: str, default: int = 0) -> int:
    text = environment.get(name, str(default))
    try:
        return int(text)
    except ValueError as error:
        raise ProcessesError(
            f"{name} is {text!r}, expected a whole number",
            key=name,
            found=text,
            fix="unset it, or start the processes with torchrun",
        ) from error
