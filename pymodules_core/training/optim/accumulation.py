"""``Accumulation``: gradients that wait, in each process others, for the step that uses them."""

from collections.abc import Iterable

from pymodules_core.processes.group import Processes
from pymodules_core.training.optim.managed_optimizer import ManagedOptimizer


class Accumulation:
    """Lets no process have gradients of its own for more steps than the longest window has.

    A checkpoint holds one set of gradients, and windows of several optimizers may never end in one
    step: after so many steps what waits in them is averaged. Steps alone decide when, and no signal
    does, so that a run which was saved there computes what one that was not computes.

    Args:
        units: The optimizers.
        processes: Who trains together. One alone has nothing apart.

    Attributes:
        is_unsynced: Processes wait with gradients of their own, which no checkpoint can hold.
    """

    def __init__(self, units: Iterable[ManagedOptimizer], processes: Processes) -> None:
        self.is_unsynced = False
        self._units = list(units)
        self._is_alone = processes.is_alone
        self._longest = max((unit.window_length for unit in self._units), default=1)
        self._steps = 0

    def step_ended(self) -> None:
        """Average what waits where it is time; every process calls it after each step."""
        if self._is_alone:
            return
        waiting = [unit for unit in self._units if unit.is_window_open]
        self._steps = self._steps + 1 if waiting else 0
        if self._steps >= self._longest:
            for unit in waiting:
                unit.average_window()
            self._steps = 0
        self.is_unsynced = self._steps > 0
