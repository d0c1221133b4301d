"""When a run ends before its last epoch, and when it saves in the middle of one."""

import time

from pymodules_core.settings import CheckpointSettings, TrainSettings


class Stopping:
    """Watches steps, minutes and evaluations without a better one.

    Args:
        settings: ``[train]``.

    Attributes:
        reason: Why the run ends, None while it goes on.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self.reason: str | None = None
        self._settings = settings
        self._step_of_commit = 0
        self._committed_at = time.monotonic()
        self._evaluations_without_better = 0
        minutes = settings.max_minutes
        self._deadline = None if minutes is None else time.monotonic() + minutes * 60

    def committed(self, step: int) -> None:
        """Everything up to ``step`` is saved."""
        self._step_of_commit = step
        self._committed_at = time.monotonic()

    def is_reached(self, step: int) -> bool:
        """Tell whether a limit of steps or minutes is reached after ``step`` steps."""
        limit = self._settings.max_steps
        if limit is not None and step >= limit:
            self.reason = f"max_steps = {limit} reached"
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = f"max_minutes = {self._settings.max_minutes:g} reached"
        return self.reason is not None

    def is_commit_due(self, step: int, checkpoints: CheckpointSettings) -> bool:
        """Tell whether it is time for a commit in mid-epoch, after ``step`` steps."""
        every_steps, every_minutes = checkpoints.every_n_steps, checkpoints.every_n_minutes
        if every_steps is not None and step - self._step_of_commit >= every_steps:
            return True
        minutes = (time.monotonic() - self._committed_at) / 60
        return every_minutes is not None and minutes >= every_minutes

    def evaluated(self, epoch: int, *, is_better: bool) -> None:
        """Count an evaluation; enough of them without a better one end the run."""
        settings = self._settings
        if is_better:
            self._evaluations_without_better = 0
        elif epoch > settings.startup:
            self._evaluations_without_better += 1
        if settings.patience is not None and self._evaluations_without_better >= settings.patience:
            self.reason = (
                f"no better {settings.monitor} in {settings.patience} evaluations (patience)"
            )
