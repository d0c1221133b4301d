"""``PoolCheckpoint``: keeps the checkpoint pools of a run that Lightning's ``Trainer`` trains."""

from pathlib import Path
from typing import Any, Literal, NoReturn

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from pymodules_core.errors import SettingsError, closest_match
from pymodules_core.plugin_api import checkpoints_dir
from pymodules_lightning.mixin import PoolMixin
from pymodules_lightning.policy import Policy
from pymodules_lightning.pool_run import PoolRun

_EXISTING = ("refuse", "resume")


class PoolCheckpoint(Checkpoint):
    """Saves the modules of a ``PoolMixin`` as ``<path>/<pool>/<module_name>.pt``.

    ``frzn``, ``init`` and ``last`` when a fit begins; ``last`` after each train epoch, and with it
    ``best``, if the monitored metric improved, and ``epoch_<n>``, if the epoch was validated.
    Lightning validates within the epoch, so all of it is one commit, and with ``last`` goes what
    the ``Trainer`` needs to continue. Nothing is written while it checks its sanity, or with
    ``fast_dev_run``; only the first process writes.

    What is None comes from the experiment: ``[train] monitor``, ``mode``, ``min_delta`` and
    ``[checkpoints] keep_epochs``, ``every_n_epochs``, ``asynchronous``, ``link``.

    Args:
        path: Folder of the pools; by default ``data/module_ckps`` of the experiment.
        existing: What to do with a run that is there: refuse it, or continue with it.
        monitor: The metric, logged by ``self.log``, that decides ``best``; False keeps no ``best``.
        mode: Whether a smaller or a larger value is better.
        min_delta: How much better it has to be.
        keep_epochs: How many ``epoch_<n>`` stay.
        every_n_epochs: How many epochs lie between two ``epoch_<n>`` at least.
        asynchronous: Training waits only until the weights are copied; a thread writes them.
        link: ``copy`` lets pools share nothing on disk.

    Raises:
        SettingsError: An argument is none of those there are.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        existing: Literal["refuse", "resume"] = "refuse",
        monitor: str | Literal[False] | None = None,
        mode: Literal["min", "max"] | None = None,
        min_delta: float | None = None,
        keep_epochs: int | Literal["all"] | None = None,
        every_n_epochs: int | None = None,
        asynchronous: bool | None = None,
        link: Literal["auto", "copy"] | None = None,
    ) -> None:
        super().__init__()
        if existing not in _EXISTING:
            raise SettingsError(
                f"existing: expected 'refuse' or 'resume', got {existing!r}",
                key="existing",
                found=existing,
                closest=closest_match(str(existing), _EXISTING),
                fix='existing="resume" resumes a run that is there, and starts one otherwise',
            )
        if every_n_epochs is not None and every_n_epochs < 1:
            raise SettingsError(
                f"every_n_epochs: expected a number of at least 1, got {every_n_epochs!r}",
                key="every_n_epochs",
                found=every_n_epochs,
                fix="every_n_epochs=1",
            )
        self._existing = existing
        self._path = None if path is None else Path(path).absolute()
        self._given = {
            "monitor": monitor,
            "mode": mode,
            "min_delta": min_delta,
            "keep_epochs": keep_epochs,
            "every_n_epochs": every_n_epochs,
            "asynchronous": asynchronous,
            "link": link,
        }
        self._run: PoolRun | None = None
        self._is_begun = False
        # Of the epoch at hand: whether it was validated, and whether after its last step.
        self._is_validated = self._is_measured = False
        self.best_value: float | None = None
        self.best_epoch: int | None = None

    @property
    def best_model_path(self) -> NoReturn:
        """What ``ckpt_path="best"`` asks for; the pools hold no checkpoint of Lightning's.

        Raises:
            SettingsError: Always; it names the call that loads ``best``.
        """
        raise SettingsError(
            'ckpt_path="best" asks PoolCheckpoint for a checkpoint of Lightning\'s, and the pools '
            "hold weights of modules",
            key="ckpt_path",
            found="best",
            fix='CheckpointManager(folder, model.plain_pool).load("best"), then '
            "trainer.test(model)",
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be saved, and a run that is there.

        Raises:
            SettingsError: The model has no pool, the strategy shards modules, or a setting is none
                of those there are.
            ExistingRunError: The folder holds a run, and ``existing`` is ``refuse``.
        """
        if stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by a helper
            return
        module = _check_program(trainer, pl_module)
        path = self._path or checkpoints_dir(module.experiment.path)
        policy = Policy.of(module.experiment, self._given)
        run = PoolRun(path, trainer, pl_module, pool=module.plain_pool, policy=policy)
        if self._existing == "refuse" and run.is_there():
            run.refuse()
        self._run = run
        self._is_begun = self._is_validated = self._is_measured = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resume the run that is there, or begin one."""
        del pl_module
        if self._run is None:
            return
        if self._run.is_there():
            self._run.resume()
        elif trainer.ckpt_path:
            return  # Lightning has yet to read optimizers and loops from its checkpoint
        else:
            self._run.start()
        self._is_begun = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a run from a checkpoint of Lightning's."""
        del trainer, pl_module
        if self._run is not None and not self._is_begun:
            self._run.start()
            self._is_begun = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what was measured; within an epoch, propose ``best`` at once."""
        del pl_module
        if self._run is None or trainer.sanity_checking:
            return
        self._is_validated = True
        # After the last step the epoch's end is next, with more to save and to measure.
        self._is_measured = trainer.is_last_batch
        if not self._is_measured:
            self._run.commit_best(_metrics(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of the epoch."""
        del pl_module
        if self._run is None:
            return
        is_validated = self._is_validated or not trainer.enable_validation
        is_measured = self._is_measured or not trainer.enable_validation
        self._is_validated = self._is_measured = False
        # Metrics of an earlier validation stay in callback_metrics: they tell nothing of today's.
        metrics = _metrics(trainer) if is_measured else None
        self._run.commit_epoch(metrics, is_validated=is_validated)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait until everything is on disk: Lightning moves the modules next."""
        del trainer, pl_module
        if self._run is not None:
            self._run.wait()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Finish what is committed, and let other writers in."""
        del trainer, pl_module
        if (run := self._leave_run()) is not None:
            run.leave(exception)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the pools."""
        del trainer, pl_module, stage
        if (run := self._leave_run()) is not None:
            run.close()

    def _leave_run(self) -> PoolRun | None:
        run, self._run = self._run, None
        if run is not None:
            self.best_value, self.best_epoch = run.best.value, run.best.epoch
        return run


def _check_program(trainer: Trainer, module: LightningModule) -> PoolMixin:
    """Refuse a program whose modules cannot be saved.

    Raises:
        SettingsError: It says what to write.
    """
    if not isinstance(trainer, Trainer):
        raise SettingsError(
            f"the Trainer is of {type(trainer).__module__.partition('.')[0]}, and PoolCheckpoint "
            "is a callback of lightning.pytorch",
            found=type(trainer).__module__,
            fix="from lightning.pytorch import Trainer, LightningModule",
        )
    if not isinstance(module, PoolMixin):
        raise SettingsError(
            f"{type(module).__name__} has no module pool, and PoolCheckpoint saves one",
            found=type(module).__name__,
            fix=f"class {type(module).__name__}(PoolMixin, LightningModule), with "
            "super().__init__(experiment)",
        )
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise SettingsError(
            f"{type(trainer.strategy).__name__} splits modules, and the pools hold whole ones",
            key="strategy",
            found=type(trainer.strategy).__name__,
            fix='Trainer(strategy="ddp"), or "auto" on one device',
        )
    return module


def _metrics(trainer: Trainer) -> dict[str, Any]:
    return dict(trainer.callback_metrics)
