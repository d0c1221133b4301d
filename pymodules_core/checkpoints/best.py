"""Decides when ``best`` moves."""

import logging
import math
from collections.abc import Mapping
from typing import Literal

from pymodules_core.checkpoints.store.records import StoredBest
from pymodules_core.errors import MonitorError, closest_match, list_words

logger = logging.getLogger("pymodules_core")


class BestTracker:
    """Remembers the best value of one metric.

    Args:
        monitor: Name of the metric.
        mode: Whether smaller or larger is better.
        min_delta: A value has to be better than the best by more than this.

    Attributes:
        value: The best value so far, None before the first.
        epoch: The epoch of that value.
    """

    def __init__(
        self, monitor: str = "loss", mode: Literal["min", "max"] = "min", min_delta: float = 0.0
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta
        self.value: float | None = None
        self.epoch: int | None = None

    def is_better(self, metrics: Mapping[str, float]) -> bool:
        """Return whether the monitored value is better than the best so far.

        The first value is always better. NaN never is, unless it is the first, and then anything
        that is a number is better.

        Raises:
            MonitorError: ``metrics`` lacks the monitored one.
        """
        value = self.read(metrics)
        if self.value is None:
            return True
        if math.isnan(value):
            return False
        if math.isnan(self.value):
            return True
        gain = self.value - value if self.mode == "min" else value - self.value
        return gain > self.min_delta

    def take(self, metrics: Mapping[str, float], *, epoch: int) -> None:
        """Remember the monitored value as the best: its weights are on disk."""
        self.value, self.epoch = self.read(metrics), epoch

    def stored(self) -> StoredBest | None:
        """Return the best value as a record keeps it."""
        if self.value is None:
            return None
        return StoredBest(
            metric=self.monitor, mode=self.mode, value=self.value, epoch=self.epoch or 0
        )

    def restore(self, stored: StoredBest | None) -> None:
        """Restore what a record keeps; reset where another metric decided."""
        self.value = self.epoch = None
        if stored is not None and self._is_of(stored):
            self.value, self.epoch = stored.value, stored.epoch

    def resume(self, stored: StoredBest | None) -> None:
        """Restore what a record keeps; where another metric decided, reset and log a warning."""
        self.restore(stored)
        if stored is not None and not self._is_of(stored):
            logger.warning(
                "best was decided by %s (%s); now %s (%s) decides, and its first value is best",
                stored.metric,
                stored.mode,
                self.monitor,
                self.mode,
            )

    def _is_of(self, stored: StoredBest) -> bool:
        return (stored.metric, stored.mode) == (self.monitor, self.mode)

    def read(self, metrics: Mapping[str, float]) -> float:
        """Return the monitored value.

        Raises:
            MonitorError: ``metrics`` lacks it.
        """
        if self.monitor not in metrics:
            near = closest_match(self.monitor, metrics)
            raise MonitorError(
                f"train.monitor: {self.monitor!r} is not among the metrics: {list_words(metrics)}",
                key="train.monitor",
                found=self.monitor,
                closest=near,
                fix=f'[train] monitor = "{near or next(iter(metrics), "loss")}", '
                "or return it from eval_step",
            )
        return float(metrics[self.monitor])
