"""When a run ends before its last epoch, and when it saves in the middle of one."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from pymodules_core.settings import CheckpointSettings, TrainSettings


class StopConditions:
    """Watches steps, minutes and evaluations without a better one.

    Args:
        settings: ``[train]``.
        clock: Returns seconds; several processes share one clock.

    Attributes:
        reason: Why the run ends, None until then.
    """

    def __init__(
        self, settings: TrainSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.reason: str | None = None
        self._clock = clock
        self._settings = settings
        self._step_of_commit = 0
        self._committed_at = self._clock()
        self._evaluations_without_better = 0
        self._started_at = self._clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began, without the time in which nobody trained it."""
        return self._clock() - self._started_at

    def state_dict(self) -> dict[str, Any]:
        """Return what decides about the end of the run."""
        return {
            "elapsed_s": self.elapsed_s,
            "evaluations_without_better": self._evaluations_without_better,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, step: int) -> None:
        """Restore what ``state_dict`` returned after ``step`` steps."""
        self._started_at = self._clock() - state["elapsed_s"]
        self._evaluations_without_better = state["evaluations_without_better"]
        self._check_patience()
        self.committed(step)

    def committed(self, step: int) -> None:
        """Everything up to ``step`` is saved."""
        self._step_of_commit = step
        self._committed_at = self._clock()

    def is_reached(self, step: int) -> bool:
        """Return whether a limit of steps or minutes is reached after ``step`` steps."""
        steps, minutes = self._settings.max_steps, self._settings.max_minutes
        if steps is not None and step >= steps:
            self.reason = f"max_steps = {steps} reached"
        elif minutes is not None and self.elapsed_s >= minutes * 60:
            self.reason = f"max_minutes = {minutes:g} reached"
        return self.reason is not None

    def is_commit_due(self, step: int, checkpoints: CheckpointSettings) -> bool:
        """Return whether it is time for a commit in mid-epoch, after ``step`` steps."""
        every_steps, every_minutes = checkpoints.every_n_steps, checkpoints.every_n_minutes
        if every_steps is not None and step - self._step_of_commit >= every_steps:
            return True
        minutes = (self._clock() - self._committed_at) / 60
        return every_minutes is not None and minutes >= every_minutes

    def evaluated(self, epoch: int, *, is_better: bool) -> None:
        """Count an evaluation; enough of them without a better one end the run."""
        if is_better:
            self._evaluations_without_better = 0
        elif epoch > self._settings.startup:
            self._evaluations_without_better += 1
        self._check_patience()

    def _check_patience(self) -> None:
        patience = self._settings.patience
        if patience is not None and self._evaluations_without_better >= patience:
            self.reason = f"no better {self._settings.monitor} in {patience} evaluations (patience)"
