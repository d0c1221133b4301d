"""``PoolRun``: the checkpoint pools of one fit."""

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from pymodules_core import BEST, FRZN, LAST, BestTracker, ModulePool, epoch_pool
from pymodules_core.errors import ExistingRunError, SettingsError, display_path
from pymodules_lightning.moment import capture_moment, is_moment, restore_moment
from pymodules_lightning.policy import Policy
from pymodules_lightning.processes import on_first_process


class PoolRun:
    """Begins or resumes the run in a folder, and commits to it.

    Every process has one and calls the same methods; the first one writes.

    Args:
        path: Folder of the pools.
        trainer: Trains.
        module: What it trains.
        pool: The modules that are saved.
        policy: What is kept.

    Raises:
        SettingsError: A value of the policy is none of those there are.
    """

    def __init__(
        self,
        path: Path,
        trainer: Trainer,
        module: LightningModule,
        *,
        pool: ModulePool,
        policy: Policy,
    ) -> None:
        self._path = path
        self._trainer = trainer
        self._module = module
        self._policy = policy
        self._pool = pool
        self._checkpoints = policy.checkpoints(path, pool)
        self._last_epoch_pool = 0

    @property
    def best(self) -> BestTracker:
        """The best value of the monitored metric, and its epoch."""
        return self._checkpoints.best

    def is_there(self) -> bool:
        """Return whether the folder holds a run."""
        return on_first_process(self._trainer, lambda: self._checkpoints.has_commit)

    def refuse(self) -> None:
        """Refuse the run that the folder holds.

        Raises:
            ExistingRunError: It says how to resume it.
        """
        raise ExistingRunError(
            "a run is there already",
            file=self._path,
            fix='PoolCheckpoint(existing="resume") resumes it; else give another folder, or '
            "move this one aside",
        )

    def start(self) -> None:
        """Save ``frzn``, ``init`` and ``last``.

        Raises:
            CheckpointError: A module, or the trainer's state, cannot be saved.
            StoreLockedError: Another process writes to the folder.
        """
        state = capture_moment(self._trainer, self._pool, last_epoch_pool=0, is_epoch_end=False)
        on_first_process(self._trainer, lambda: self._start(state))

    def resume(self) -> None:
        """Go on from the newest commit: weights, and what Lightning needs.

        Raises:
            SettingsError: Lightning is to resume from a checkpoint of its own besides.
            ExistingRunError: Another trainer made the run.
            CheckpointError: It does not fit today's program, or is damaged.
        """
        trainer = self._trainer
        if trainer.ckpt_path:
            raise SettingsError(
                f"two moments to resume from: {trainer.ckpt_path} for Lightning, and the run in "
                f"{display_path(self._path)}",
                key="ckpt_path",
                found=str(trainer.ckpt_path),
                fix="leave ckpt_path out: the run has what Lightning needs. To begin another run "
                "from that checkpoint, give PoolCheckpoint another folder",
            )
        state = on_first_process(trainer, lambda: self._checkpoints.resume().state)
        if not is_moment(state):
            raise ExistingRunError(
                f"the run in {display_path(self._path)} is not Lightning's: its newest commit "
                "lacks the state of optimizers and loops that Lightning needs",
                file=self._path,
                fix="begin another experiment, whose modules take their weights from this one by "
                "load_weights_from_exp",
            )
        if not trainer.is_global_zero:
            for pool_name in self._checkpoints.pools():
                if pool_name in {FRZN, LAST}:
                    self._checkpoints.load(pool_name)
        self._last_epoch_pool = restore_moment(trainer, self._module, state)

    def commit_best(self, metrics: Mapping[str, float]) -> None:
        """Propose the weights as ``best`` within an epoch; ``last`` stays where it is.

        Args:
            metrics: What was measured of them.

        Raises:
            MonitorError: The monitored metric is not among them.
            CheckpointError: An earlier commit could not be written.
        """
        if not self._policy.monitor:
            return
        self._policy.check_monitor(metrics)

        def commit() -> None:
            if self._checkpoints.best.is_better(metrics):
                self._checkpoints.commit(BEST, epoch=self._epoch, step=self._step, metrics=metrics)

        on_first_process(self._trainer, commit)

    def commit_epoch(self, metrics: Mapping[str, float] | None, *, is_validated: bool) -> None:
        """Save the end of an epoch.

        Args:
            metrics: What was measured of the weights as they are, or None.
            is_validated: Whether the epoch is to get a pool ``epoch_<n>``.

        Raises:
            MonitorError: The monitored metric is not among the metrics.
            CheckpointError: An earlier commit could not be written, or something cannot be saved.
            FrozenModuleError: A frozen module has changed.
        """
        epoch, pools = self._epoch, [LAST]
        if metrics is not None and self._policy.monitor:
            self._policy.check_monitor(metrics)
            pools.append(BEST)
        if is_validated and epoch - self._last_epoch_pool >= self._policy.every_n_epochs:
            pools.append(epoch_pool(epoch))
            self._last_epoch_pool = epoch
        state = capture_moment(
            self._trainer, self._pool, last_epoch_pool=self._last_epoch_pool, is_epoch_end=True
        )

        def commit() -> None:
            self._checkpoints.commit(
                *pools, epoch=epoch, step=self._step, metrics=metrics, state=state
            )

        on_first_process(self._trainer, commit)

    def wait(self) -> None:
        """Return when everything is on disk.

        Raises:
            CheckpointError: A commit could not be written; those before it are intact.
        """
        on_first_process(self._trainer, self._checkpoints.wait)

    def close(self) -> None:
        """Finish and let other writers in.

        Raises:
            CheckpointError: A commit could not be written; those before it are intact.
        """
        self._checkpoints.close()

    def leave(self, error: BaseException) -> None:
        """Finish what is committed when a fit fails; what goes wrong now is logged, not raised."""
        self._checkpoints.__exit__(type(error), error, error.__traceback__)

    @property
    def _epoch(self) -> int:
        """The epoch at hand, counted from 1; Lightning counts from 0."""
        return self._trainer.current_epoch + 1

    @property
    def _step(self) -> int:
        """Train batches so far; Lightning's ``global_step`` counts each optimizer's steps."""
        return self._trainer.fit_loop.total_batch_idx + 1

    def _start(self, state: Mapping[str, object]) -> None:
        try:
            self._checkpoints.start(state=state)
        except ExistingRunError:
            # Folders without a commit, which resume() would not take either, keep their message.
            if self._checkpoints.has_commit:
                self.refuse()
            raise
