"""What is kept and what decides ``best``: arguments, and for the rest ``experiment.toml``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import attrs
import lightning

from pymodules_core import CheckpointManager, Experiment, ModulePool
from pymodules_core.errors import MonitorError, closest_match, list_words


@attrs.frozen(kw_only=True)
class Policy:
    """The settings of a callback.

    Attributes:
        monitor: The metric that decides ``best``; False where there is none.
        mode: Whether a smaller or a larger value is better.
        min_delta: How much better it has to be.
        keep_epochs: How many ``epoch_<n>`` stay.
        every_n_epochs: How many epochs lie between two of them at least.
        asynchronous: Whether a thread writes.
        link: Whether pools share anything on disk.
        experiment: Where ``monitor`` was written; None where it was given in code.
    """

    monitor: str | Literal[False]
    mode: Literal["min", "max"]
    min_delta: float
    keep_epochs: int | Literal["all"]
    every_n_epochs: int
    asynchronous: bool
    link: Literal["auto", "copy"]
    experiment: Experiment | None

    @classmethod
    def of(cls, experiment: Experiment, given: Mapping[str, Any]) -> Self:
        """Take what is given, and the rest from an experiment's settings.

        Args:
            experiment: Its ``[train]`` and ``[checkpoints]`` are read.
            given: Field to value; None is taken from there.
        """
        tables = (experiment.settings.train, experiment.settings.checkpoints)
        written = {
            name: getattr(table, name)
            for table in tables
            for name in attrs.fields_dict(cls)
            if hasattr(table, name)
        }
        chosen = {key: value for key, value in given.items() if value is not None}
        return cls(**{**written, **chosen}, experiment=None if "monitor" in chosen else experiment)

    def checkpoints(self, path: Path, pool: ModulePool) -> CheckpointManager:
        """Make the manager of the pools in a folder.

        Raises:
            SettingsError: A value is none of those there are.
        """
        return CheckpointManager(
            path,
            pool,
            monitor=self.monitor or "",
            mode=self.mode,
            min_delta=self.min_delta,
            keep_epochs=self.keep_epochs,
            asynchronous=self.asynchronous,
            link=self.link,
            provenance={"trainer": f"lightning {lightning.__version__}"},
        )

    def check_monitor(self, metrics: Mapping[str, float]) -> None:
        """Refuse metrics that cannot decide ``best``.

        Raises:
            MonitorError: The monitored one is not among them; with the line it was written in.
        """
        monitor = self.monitor
        if not monitor or monitor in metrics:
            return
        near = closest_match(monitor, metrics)
        example = near or next(iter(metrics), "val_loss")
        key = "train.monitor" if self.experiment else "monitor"
        where = f'[train] monitor = "{example}"' if self.experiment else f"monitor={example!r}"
        error = MonitorError(
            f"{key}: {monitor!r} is not among the metrics that were logged: "
            f"{list_words(sorted(metrics))}",
            key=key,
            found=monitor,
            closest=near,
            fix=f"{where}, or self.log({monitor!r}, ...) in validation_step, or "
            "PoolCheckpoint(monitor=False) to keep no best",
        )
        raise self.experiment.locate(error) if self.experiment else error
