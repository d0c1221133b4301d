"""``Commits``: what a commit of a run holds besides weights, and when epochs get their own pool."""

from collections.abc import Mapping

import attrs

from pymodules_core.checkpoints import CheckpointManager
from pymodules_core.names import epoch_pool
from pymodules_core.training.fit.position import Position, Stage
from pymodules_core.training.fit.run_log import RunLog
from pymodules_core.training.fit.training_state import TrainingState
from pymodules_core.training.preparation.session import Session


@attrs.frozen(kw_only=True)
class Commits:
    """Commits a run, each time with its training state.

    Attributes:
        session: The parts of the run.
        checkpoints: Where it is saved.
        run_log: What reports it.
        state: What a run resumes from.
        position: Where it is in its order.
    """

    session: Session
    checkpoints: CheckpointManager
    run_log: RunLog
    state: TrainingState
    position: Position

    def commit(self, stage: Stage, *pools: str, metrics: Mapping[str, float] | None = None) -> None:
        """Commit to pools once ``stage`` of the epoch is done."""
        run = self.session.run
        self.session.modules.check_calls()
        self.session.modules.copy_buffers()
        self.position.stage = stage
        self.position.log_bytes = self.run_log.record.log_bytes
        captured = self.state.capture()
        self.run_log.committed(
            self.checkpoints.commit(
                *pools,
                epoch=run.epoch,
                step=run.step,
                metrics=metrics,
                state=captured.state,
                module_states=captured.per_module,
            )
        )

    def epoch_pools(self) -> list[str]:
        """Return ``epoch_<n>`` where enough epochs went by since the last one."""
        epoch = self.session.run.epoch
        every_n_epochs = self.session.experiment.settings.checkpoints.every_n_epochs
        if epoch - self.position.last_epoch_pool < every_n_epochs:
            return []
        self.position.last_epoch_pool = epoch
        return [epoch_pool(epoch)]
