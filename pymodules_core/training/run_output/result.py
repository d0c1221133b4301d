"""What came of a run."""

from collections.abc import Mapping
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        experiment: Its name.
        epochs: Epochs trained.
        steps: Steps trained.
        best_value: The best monitored value, None without an eval loop.
        best_epoch: Its epoch.
        metrics: Means of the last eval loop, or of the last train loop without one.
        stop_reason: Why it ended.
        wall_s: Seconds in all.
        data_dir: What the run wrote.
        pools: Checkpoint pools on disk.
    """

    experiment: str
    epochs: int
    steps: int
    best_value: float | None
    best_epoch: int | None
    metrics: Mapping[str, float]
    stop_reason: str
    wall_s: float
    data_dir: Path
    pools: tuple[str, ...]
