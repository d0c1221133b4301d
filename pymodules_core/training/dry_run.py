"""Runs an experiment for one batch elsewhere, and leaves its folder as it was."""

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.checkpoints.file_format.state_dict import live_state_dict
from pymodules_core.experiment import Experiment
from pymodules_core.names import FRZN, LAST
from pymodules_core.run_files import CHECKPOINTS_DIR_NAME
from pymodules_core.training.data import Batches
from pymodules_core.training.fit.run_loop import RunLoop
from pymodules_core.training.preparation.run_facts import run_facts
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.console import EpochSummary, SilentPrinter


def check_experiment(experiment: Experiment, *, load_installed: bool = True) -> Iterator[str]:
    """Build, load weights, train and evaluate one batch, save, load again; hooks are called too.

    Args:
        experiment: The experiment.
        load_installed: Whether to load installed plugins.

    Yields:
        What was found to work, as it is found.

    Raises:
        PymodulesError: The first thing that does not work.
    """
    with tempfile.TemporaryDirectory(prefix="pymodules-check-") as folder:
        session = Session.prepare(
            experiment,
            data_dir=Path(folder),
            reporter=SilentPrinter(),
            load_installed=load_installed,
        )
        yield from _describe_pool(session)
        reporter = _LastSummary()
        with session.checkpoints(Path(folder) / CHECKPOINTS_DIR_NAME) as checkpoints:
            batch_session = _on_one_batch(session)
            RunLoop(batch_session, checkpoints, reporter, run_facts(session)).execute()
            yield f"one train step on {session.run.device}: {_join(reporter.train_metrics)}"
            if reporter.eval_metrics:
                yield f"one eval step: {_join(reporter.eval_metrics)}"
                value = session.monitored(checkpoints, reporter.eval_metrics)
                yield f"monitor {checkpoints.best.monitor} = {value:.4g}"
            for pool_name in (FRZN, LAST):
                checkpoints.load(pool_name)
            size = sum(f.stat().st_size for f in (checkpoints.path / LAST).glob("*.pt"))
            yield f"saved and loaded again, {size:,} bytes in {LAST}"


def _on_one_batch(session: Session) -> Session:
    """Return the session of a run that is one epoch of one batch, hooks and commits included."""
    experiment, loops = session.experiment, session.loops
    train = attrs.evolve(experiment.settings.train, epochs=1)
    batches = loops.eval_batches
    return attrs.evolve(
        session,
        experiment=attrs.evolve(
            experiment, settings=attrs.evolve(experiment.settings, train=train)
        ),
        loops=attrs.evolve(
            loops,
            train_batches=_FirstBatch(loops.train_batches),
            eval_batches=None if batches is None else _FirstBatch(batches),
        ),
    )


class _LastSummary(SilentPrinter):
    """Keeps the metrics of the last epoch."""

    train_metrics: Mapping[str, float]
    eval_metrics: Mapping[str, float]

    def epoch_ended(self, summary: EpochSummary) -> None:
        """Keep them."""
        self.train_metrics, self.eval_metrics = summary.train_metrics, summary.eval_metrics


class _FirstBatch(Batches):
    """The first batch of other batches."""

    promised = length = 1

    def __init__(self, batches: Batches) -> None:
        self._whole = batches

    def epoch(self, epoch: int, *, done: int = 0) -> Iterator[object]:
        """Return the first batch."""
        return itertools.islice(self._whole.epoch(epoch, done=done), 1)

    def state_dict(self) -> dict[str, Any] | None:
        """Return that of the whole data."""
        return self._whole.state_dict()


def _describe_pool(session: Session) -> Iterator[str]:
    for name, entry in session.pool.entries.items():
        state = live_state_dict(entry.module, name=name)
        frozen = "frozen, " if entry.settings.frozen else ""
        size = f"{entry.parameter_count:,} parameters, {len(state)} tensors"
        yield f"module {name}: {frozen}{size} ({entry.origin})"
    for report in session.reports:
        yield f"weights of {report}"
    owners = ", ".join(
        f"{name} ({type(unit.optimizer).__name__})" for name, unit in session.optimizers.items()
    )
    yield f"optimizers: {owners}"


def _join(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
