"""When a run ends before its last epoch, and when it saves in the middle of one."""

import time

from pymodules_core.settings import CheckpointSettings, TrainSettings


class Stopping:
    """Counts steps, minutes and evaluations without a better one.

    Args:
        settings: ``[train]``.

    Attributes:
        reason: Why the run ends, None while it goes on.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self.reason: str | None = None
        self._settings = settings
        self._steps = 0
        self._steps_at_commit = 0
        self._committed_at = time.monotonic()
        self._evaluations_without_better = 0
        minutes = settings.max_minutes
        self._deadline = None if minutes is None else time.monotonic() + minutes * 60

    def start_epoch(self) -> None:
        """An epoch begins; what was saved at the end of the one before counts as a commit."""
        self._steps_at_commit = self._steps
        self._committed_at = time.monotonic()

    def is_reached(self, *, steps_ahead: int = 0) -> bool:
        """Tell whether a limit of steps or minutes is reached.

        Args:
            steps_ahead: Steps under way that ``stepped`` has not counted yet.
        """
        limit = self._settings.max_steps
        if limit is not None and self._steps + steps_ahead >= limit:
            self.reason = f"max_steps = {limit} reached"
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = f"max_minutes = {self._settings.max_minutes:g} reached"
        return self.reason is not None

    def stepped(self, checkpoints: CheckpointSettings) -> bool:
        """Count a step; say whether it is time for a commit in mid-epoch."""
        self._steps += 1
        every_steps, every_minutes = checkpoints.every_n_steps, checkpoints.every_n_minutes
        is_due = every_steps is not None and self._steps - self._steps_at_commit >= every_steps
        if every_minutes is not None:
            is_due |= time.monotonic() - self._committed_at >= every_minutes * 60
        if is_due:
            self.start_epoch()
        return is_due

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
