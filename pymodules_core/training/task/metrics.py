"""Averages the metrics of steps into those of an epoch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from pymodules_core.errors import TaskError
from pymodules_core.processes.group import Processes
from pymodules_core.training.state.encoding import decode_state, encode_state


@runtime_checkable
class StatefulMetric(Protocol):
    """A metric that accumulates by itself, as those of torchmetrics do."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Take in one batch; the task calls it."""

    def compute(self) -> Any:
        """Return the value over all batches since ``reset``."""

    def reset(self) -> Any:
        """Forget all batches."""


def check_metric(name: Any, value: Any) -> None:
    """Refuse what ``MetricAverages.add`` would.

    Raises:
        TaskError: ``name`` is not a string, or ``value`` not a metric.
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

    Attributes:
        stateful: Metrics that accumulate by themselves, by name.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Any] = {}
        self._weights: dict[str, int] = {}
        self.stateful: dict[str, StatefulMetric] = {}

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
                self.stateful[name] = value
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
        """Return the means of the numbers so far, in the order their names came.

        NaN where a value was NaN. Metrics that accumulate by themselves are left out: computing
        them may be expensive, and the bar asks several times a second.
        """
        return {
            name: float(total) / self._weights[name] if self._weights[name] else math.nan
            for name, total in self._totals.items()
        }

    def means(self, processes: Processes | None = None) -> dict[str, float]:
        """Return all means over the batches of all processes, each of which has to ask.

        Metrics that accumulate by themselves are among them: their ``merge_state``, as torcheval
        has it, gets those of the other processes; those of torchmetrics find each other.

        Raises:
            TaskError: A metric gives no number, or cannot be joined over processes.
        """
        processes = processes or Processes.alone()
        if not processes.is_alone:
            self.load_state_dict(merged_sums(processes.gather(self.state_dict())))
        return self.running_means() | {
            name: _as_float(name, _joined(name, metric, processes).compute())
            for name, metric in self.stateful.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the numbers so far, for a checkpoint within a pass.

        What accumulates by itself is not among them; ``stateful`` names it.
        """
        return {
            "totals": encode_state(self._totals, name="metrics"),
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self._totals = decode_state(state["totals"])
        self._weights = dict(state["weights"])

    def reset_stateful(self) -> None:
        """Reset metrics that accumulate by themselves, for the next pass."""
        for metric in self.stateful.values():
            metric.reset()


def merged_sums(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what ``MetricAverages.state_dict`` gave in each process.

    In the order of the processes, so that the sums are the same bits in all of them.
    """
    totals: dict[str, float] = {}
    weights: dict[str, int] = {}
    for state in states:
        for name, total in decode_state(state["totals"]).items():
            totals[name] = totals.get(name, 0.0) + float(total)
            weights[name] = weights.get(name, 0) + state["weights"][name]
    return {"totals": encode_state(totals, name="metrics"), "weights": weights}


def _joined(name: str, metric: StatefulMetric, processes: Processes) -> StatefulMetric:
    """Return a metric that knows the batches of all processes."""
    if processes.is_alone or hasattr(metric, "dist_sync_fn"):  # torchmetrics does it in compute
        return metric
    merge = getattr(metric, "merge_state", None)
    if merge is None:
        raise TaskError(
            f"metric {name!r} is {type(metric).__name__}, which accumulates by itself and cannot "
            "be joined over processes",
            key=name,
            found=metric,
            fix="give it merge_state(metrics), which takes in other metrics of its class",
        )
    own, others = processes.rank, processes.gather(metric)
    first: Any = others[0] if own else metric
    # Merged in one order, so that all processes compute the same bits.
    first.merge_state([one for rank, one in enumerate(others) if rank])
    joined: StatefulMetric = first
    return joined


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
