"""Tries everything a run needs on one batch, and leaves the experiment's folder as it was."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pymodules_core.checkpoints.state_dicts import plain_state_dict
from pymodules_core.experiment import Experiment
from pymodules_core.names import FRZN, LAST
from pymodules_core.training.data import Batches
from pymodules_core.training.records import count_parameters
from pymodules_core.training.reporting import SilentReporter
from pymodules_core.training.session import Session


def check_experiment(experiment: Experiment, *, load_installed: bool = True) -> Iterator[str]:
    """Build, load weights, train and evaluate one batch, save, load again.

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
            reporter=SilentReporter(),
            load_installed=load_installed,
        )
        yield from _describe_pool(session)
        loops, run = session.loops, session.run
        checkpoints = session.checkpoints(Path(folder) / "module_ckps")
        checkpoints.start()
        run.epoch = 1
        metrics = loops.train(should_stop=lambda: True, after_step=lambda: None)
        yield f"one train step on {session.device}: {_join(metrics)}"
        if loops.eval_batches is not None:
            metrics = loops.evaluate(_FirstBatch(loops.eval_batches))
            yield f"one eval step: {_join(metrics)}"
            value = session.monitored(checkpoints, metrics)
            yield f"monitor {checkpoints.best.monitor} = {value:.4g}"
        checkpoints.commit(LAST, epoch=1, step=run.step)
        for pool_name in (FRZN, LAST):
            checkpoints.load(pool_name)
        size = sum(f.stat().st_size for f in (checkpoints.path / LAST).glob("*.pt"))
        yield f"saved and loaded again, {size:,} bytes in {LAST}"


class _FirstBatch(Batches):
    """The first batch of other batches."""

    def __init__(self, batches: Batches) -> None:
        self._whole = batches

    @property
    def promised(self) -> int:
        """One."""
        return 1

    @property
    def length(self) -> int:
        """One."""
        return 1

    def epoch(self, epoch: int) -> Iterator[object]:
        """Give the first batch."""
        return itertools.islice(self._whole.epoch(epoch), 1)


def _describe_pool(session: Session) -> Iterator[str]:
    for name, entry in session.pool.entries.items():
        state = plain_state_dict(entry.module, name=name)
        frozen = "frozen, " if entry.settings.frozen else ""
        count = count_parameters(entry.module)
        yield f"module {name}: {frozen}{count:,} parameters, {len(state)} tensors ({entry.origin})"
    for report in session.reports:
        yield f"weights of {report}"
    owners = ", ".join(
        f"{name} ({type(unit.optimizer).__name__})" for name, unit in session.units.items()
    )
    yield f"optimizers: {owners}"


def _join(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
