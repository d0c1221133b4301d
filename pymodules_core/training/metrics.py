"""Averages the metrics of steps into those of an epoch."""

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from pymodules_core.errors import TaskError
from pymodules_core.training.state.encoding import decode, encode


@runtime_checkable
class StatefulMetric(Protocol):
    """A metric that accumulates by itself, as those of torchmetrics do."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Take in one batch; the task calls it."""

    def compute(self) -> Any:
        """Give the value over all batches since ``reset``."""

    def reset(self) -> Any:
        """Forget all batches."""


def check_metric(name: Any, value: Any) -> None:
    """Refuse what ``MetricAverages.add`` would.

    Raises:
        TaskError: ``name`` is no string, or ``value`` no metric.
    """
    if not isinstance(name, str):
        raise TaskError(
            f"a metric is called {name!r}, expected str", found=name, fix=f"call it {str(name)!r}"
        )
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise TaskError(
                f"metric {name!r} has shape {list(value.shape)}, expected one number",
                key=name,
                found=list(value.shape),
                fix="average it: value.mean()",
            )
    elif not isinstance(value, int | float | StatefulMetric):
        _as_float(name, value)


class MetricAverages:
    """Weighted means by name, for one pass over the data.

    Values on the CPU are added as Python floats; those on another device stay there, so that no
    step waits for the device.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Any] = {}
        self._weights: dict[str, int] = {}
        self._stateful: dict[str, StatefulMetric] = {}

    def add(self, name: str, value: Any, weight: int) -> None:
        """Add one batch.

        Args:
            name: Name of the metric.
            value: A number, a one-element tensor, or a stateful metric.
            weight: Samples in the batch.

        Raises:
            TaskError: ``value`` is none of these.
        """
        if isinstance(value, torch.Tensor):
            if value.numel() != 1:
                check_metric(name, value)
            if value.device.type == "cpu":
                value = value.item()
            else:
                value = value.detach().reshape(()).double()
        elif not isinstance(value, int | float):
            if isinstance(value, StatefulMetric):
                self._stateful[name] = value
                return
            value = _as_float(name, value)
        if name in self._totals:
            self._totals[name] += value * weight
            self._weights[name] += weight
        else:
            check_metric(name, value)
            self._totals[name] = value * weight
            self._weights[name] = weight

    def running_means(self) -> dict[str, float]:
        """Give the means of the numbers so far, in the order their names came.

        NaN where a value was NaN. Metrics that accumulate by themselves are left out: computing
        them may be expensive, and the bar asks several times a second.
        """
        return {
            name: float(total) / self._weights[name] if self._weights[name] else math.nan
            for name, total in self._totals.items()
        }

    def means(self) -> dict[str, float]:
        """Give all means, those of metrics that accumulate by themselves included."""
        return self.running_means() | {
            name: _as_float(name, metric.compute()) for name, metric in self._stateful.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Give the sums of the numbers so far, for a checkpoint within a pass.

        What accumulates by itself is not among them; ``stateful`` names it.
        """
        return {
            "totals": encode(self._totals, name="metrics"),
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self._totals = decode(state["totals"])
        self._weights = dict(state["weights"])

    @property
    def stateful(self) -> Mapping[str, StatefulMetric]:
        """Metrics that accumulate by themselves, by name."""
        return self._stateful

    def reset_stateful(self) -> None:
        """Reset metrics that accumulate by themselves, for the next pass."""
        for metric in self._stateful.values():
            metric.reset()


def _as_float(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TaskError(
            f"metric {name!r} is {type(value).__name__}, expected a number, a one-element tensor "
            "or an object with update, compute and reset",
            key=name,
            found=value,
            fix="return a mean: value.mean()",
        ) from error
