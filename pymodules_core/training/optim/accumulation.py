"""``Accumulation``: gradients of open windows, which differ by process until they are averaged."""

from collections.abc import Iterable

from pymodules_core.processes.group import Processes
from pymodules_core.training.optim.managed_optimizer import ManagedOptimizer


class Accumulation:
    """Averages gradients over processes at least once in as many steps as the longest window has.

    A checkpoint holds one set of gradients, and windows of several optimizers may never end in one
    step: after so many steps what waits in them is averaged. Steps alone decide when, and no signal
    does, so that a run which was saved there computes what one that was not computes.

    Args:
        optimizers: The optimizers.
        processes: Who trains together.

    Attributes:
        is_unsynced: Processes have gradients of their own, which no checkpoint can hold.
    """

    def __init__(self, optimizers: Iterable[ManagedOptimizer], processes: Processes) -> None:
        self.is_unsynced = False
        self._optimizers = list(optimizers)
        self._is_alone = processes.is_alone
        self._longest = max((optimizer.window_length for optimizer in self._optimizers), default=1)
        self._steps = 0

    def step_ended(self) -> None:
        """Average what waits if it is time; every process calls it after each step."""
        if self._is_alone:
            return
        waiting = [optimizer for optimizer in self._optimizers if optimizer.is_window_open]
        self._steps = self._steps + 1 if waiting else 0
        if self._steps >= self._longest:
            for optimizer in waiting:
                optimizer.average_window()
            self._steps = 0
        self.is_unsynced = self._steps > 0
