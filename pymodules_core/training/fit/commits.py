"""``Commits``: the first commit of a run, each later one, and the one that it resumes from."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import attrs

from pymodules_core.checkpoints import CheckpointManager, Resumed
from pymodules_core.errors import CheckpointError, PymodulesError
from pymodules_core.initial_weights import load_initial_weights
from pymodules_core.names import epoch_pool
from pymodules_core.run_files import SOURCES_DIR_NAME
from pymodules_core.training.fit.position import Position, Stage
from pymodules_core.training.fit.run_log import RunLog
from pymodules_core.training.fit.training_state import TrainingState, is_training_state
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.code_snapshot import copy_sources
from pymodules_core.training.run_output.run_record import RunState

logger = logging.getLogger("pymodules_core")

# What reading nested values of another shape raises.
_OF_OTHER_SHAPE = (
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
)
_LONGEST_SHOWN = 200


@attrs.frozen(kw_only=True)
class Commits:
    """Commits a run, each time with its training state, and restores it from a commit.

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

    def start(self) -> None:
        """Begin a new run: commit ``frzn``, ``init`` and ``last``."""
        session = self.session
        session.events.emit("weights_ready")
        state, module_states = self.state.capture()
        receipt = self.checkpoints.start(state=state, module_states=module_states)
        # From here on no other process writes here.
        self.run_log.record.begin()
        if session.processes.is_first:
            copy_sources(session.experiment, session.run.data_dir)
        self.run_log.write(RunState.RUNNING)
        self.run_log.committed(receipt)

    def restore(self, *, accepts_losses: bool) -> Mapping[str, Any] | None:
        """Restore everything from the latest commit; nothing is written.

        Args:
            accepts_losses: Resume without what cannot be restored.

        Returns:
            The sums of metrics of the epoch's first part, where it is in the middle of one.
        """
        resumed = self.checkpoints.resume(allow_new=True)
        load_initial_weights(self.session.pool)  # of modules that are new
        if not is_training_state(resumed.state):
            self._take_weights_only(resumed)
            return None
        migrations = {
            name: report.migration
            for name, report in resumed.reports.items()
            if report.migration is not None
        }
        try:
            return self.state.restore(
                resumed.state, migrations, resumed.module_states, accepts_losses=accepts_losses
            )
        except PymodulesError:
            raise
        # A file may come from anywhere, or hold a state that was made by hand.
        except _OF_OTHER_SHAPE as error:
            reason = next(iter(str(error).splitlines()), "")
            raise CheckpointError(
                "the training state is not what this version writes: "
                f"{type(error).__name__}: {reason[:_LONGEST_SHOWN]}",
                file=self.checkpoints.path,
                fix="begin another experiment, whose modules take their weights from this one by "
                "load_weights_from_exp; or resume with the version that wrote it",
            ) from error

    def record_resume(self, *, has_changes: bool) -> None:
        """Record that the run resumed.

        Args:
            has_changes: It resumed with other sources than it began with.
        """
        run = self.session.run
        has_sources = (run.data_dir / SOURCES_DIR_NAME).is_dir()
        if self.session.processes.is_first and (has_changes or not has_sources):
            copy_sources(self.session.experiment, run.data_dir)
        run.resumed_step = run.step
        where = "in" if self.position.stage is Stage.TRAINING else "after"
        self.run_log.resumed(f"resumed {where} epoch {run.epoch}, step {run.step}")

    def commit(self, stage: Stage, *pools: str, metrics: Mapping[str, float] | None = None) -> None:
        """Commit to pools once ``stage`` of the epoch is done."""
        run = self.session.run
        self.session.loops.modules.check_calls()
        self.session.loops.modules.copy_buffers()
        self.position.stage = stage
        self.position.log_bytes = self.run_log.record.log_bytes
        state, module_states = self.state.capture()
        self.run_log.committed(
            self.checkpoints.commit(
                *pools,
                epoch=run.epoch,
                step=run.step,
                metrics=metrics,
                state=state,
                module_states=module_states,
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

    def _take_weights_only(self, resumed: Resumed) -> None:
        """Resume from a commit that the trainer did not make, or that was repaired from files."""
        logger.warning(
            "the checkpoint has no training state of the trainer's: optimizers, schedulers and "
            "random numbers are reset after epoch %d",
            resumed.epoch,
        )
        run, position = self.session.run, self.position
        run.epoch, run.step = resumed.epoch, resumed.step
        position.stage = Stage.FINISHED if resumed.epoch else Stage.STARTED
        position.metrics = {
            name: math.nan if value is None else value for name, value in resumed.metrics.items()
        }
        position.last_epoch_pool = resumed.epoch
        position.log_bytes = self.run_log.record.log_bytes
