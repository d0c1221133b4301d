"""What a fuzzing target is, and how its cases are counted."""

import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import attrs

from pymodules_core.errors import PymodulesError

# A message is for a person: nothing that was in a file may flood it.
_LONGEST_MESSAGE = 6000


class Target(ABC):
    """One way in for bad input.

    Args:
        folder: An empty folder of its own, which is the working directory.
    """

    name: ClassVar[str]
    # Of 100,000 cases; what is slow, or has few ways to go wrong, gets fewer.
    share: ClassVar[int]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def prepare(self, choice: random.Random) -> object:
        """Make the input of one case; for what is written of it the watch is still off."""

    @abstractmethod
    def try_it(self, given: object) -> None:
        """Return the input to the package.

        Raises:
            PymodulesError: It is refused.
            AssertionError: It was taken, and is not what it says.
        """


@attrs.define
class Tally:
    """What came of a target's cases.

    Attributes:
        refused: Told with an error of the package.
        taken: Taken, and as good as it says; or an older commit in its place, and that told.
        slowest_s: The slowest case, in seconds.
        growth_bytes: What the process took of memory beyond what it had.
        broken: What went wrong, by number of the case.
    """

    refused: int = 0
    taken: int = 0
    slowest_s: float = 0.0
    growth_bytes: int = 0
    broken: dict[str, str] = attrs.field(factory=dict)

    @property
    def cases(self) -> int:
        """How many there were."""
        return self.refused + self.taken + len(self.broken)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            refused=self.refused + other.refused,
            taken=self.taken + other.taken,
            slowest_s=max(self.slowest_s, other.slowest_s),
            growth_bytes=max(self.growth_bytes, other.growth_bytes),
            broken=self.broken | other.broken,
        )


def check_message(error: PymodulesError) -> None:
    """Check that an error is one that a person can read and act upon."""
    text = str(error)
    assert len(text) < _LONGEST_MESSAGE, f"a message of {len(text):,} characters"
    assert "weights_only=False" not in text
