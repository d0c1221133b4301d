"""``Position``: where in the order of a run it is."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs


class Stage(StrEnum):
    """What of the epoch is done."""

    STARTED = "started"
    """The initial weights are saved; with epoch 0 to be evaluated."""
    TRAINING = "training"
    """Some of its steps."""
    TRAINED = "trained"
    """All of its steps."""
    FINISHED = "finished"
    """Its evaluation, too, where it has one; ``epoch_finished`` is still to be called."""


@attrs.define(kw_only=True)
class Position:
    """Where in the order of a run it is; epoch and step are the run's.

    Attributes:
        stage: What of the epoch is done.
        batches_done: Batches of the epoch, in stage ``training``.
        train_metrics: Means of the last train loop.
        metrics: Means of the last eval loop, or of the last train loop without one.
        is_evaluated: Whether ``metrics`` are of an eval loop.
        last_epoch_pool: The last epoch with a pool ``epoch_<n>``.
        log_bytes: How long ``metrics.jsonl`` is.
    """

    stage: Stage = Stage.STARTED
    batches_done: int = 0
    train_metrics: Mapping[str, float] = attrs.field(factory=dict)
    metrics: Mapping[str, float] = attrs.field(factory=dict)
    is_evaluated: bool = False
    last_epoch_pool: int = 0
    log_bytes: int = 0

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore what ``attrs.asdict`` returned.

        Raises:
            TypeError: A value is of another kind.
            ValueError: There is no such stage, or a number is negative.
        """
        for name, default in attrs.asdict(Position()).items():
            value = saved.get(name, default)
            if name == "stage":
                value = Stage(value)
            elif type(value) is not type(default):
                raise TypeError(f"{name} is {type(value).__name__}")
            elif type(value) is int:
                whole_number(value)
            elif isinstance(value, dict):
                value = {str(key): float(number) for key, number in value.items()}
            setattr(self, name, value)


def whole_number(number: Any) -> int:
    """Return a number that was read; ValueError where it counts nothing."""
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r} counts nothing")
    return number
