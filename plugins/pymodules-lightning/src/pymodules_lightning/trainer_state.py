"""What Lightning's ``Trainer`` needs to continue, as it would write it to a checkpoint of its own.

Taken and given back through public names of Lightning: ``save_checkpoint`` with a ``CheckpointIO``
that keeps what it is given, and the ``load_state_dict`` of each part.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor

from pymodules_core import ModulePool
from pymodules_core.errors import CheckpointError, PymodulesError, TaskError
from pymodules_core.plugin_api import decode_state, encode_state

_WEIGHTS, _CALLBACKS = "state_dict", "callbacks"
_OPTIMIZERS, _SCHEDULERS = "optimizer_states", "lr_schedulers"
_TENSOR_IDENTITY = tuple[int, tuple[int, ...], tuple[int, ...]]


class _CheckpointTaker(CheckpointIO):
    """Keeps the checkpoint that is to be written; reads and removes as the one it stands for.

    Args:
        inner: The one it stands for.
    """

    def __init__(self, inner: CheckpointIO) -> None:
        self.taken: dict[str, Any] = {}
        self._inner = inner

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: Any,
        storage_options: Any = None,
    ) -> None:
        """Keep it."""
        del path, storage_options
        self.taken = checkpoint

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Read a file."""
        return self._inner.load_checkpoint(*args, **kwargs)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a file."""
        self._inner.remove_checkpoint(path)


def capture_trainer(trainer: Trainer, pool: ModulePool) -> dict[str, Any]:
    """Return the state of loops, optimizers, schedulers, callbacks, precision and data.

    Every process has to call it.

    Args:
        trainer: In a fit.
        pool: Its tensors are left out, since the pools have them; what else the ``LightningModule``
            holds is not.

    Returns:
        Tensors and primitives; empty in all processes but the first. Tensors are live, not copied.

    Raises:
        CheckpointError: A part gives what no checkpoint can hold.
    """
    strategy = trainer.strategy
    usual = strategy.checkpoint_io
    taker = _CheckpointTaker(usual)
    strategy.checkpoint_io = taker
    try:
        trainer.save_checkpoint("taken.ckpt", weights_only=False)
    finally:
        strategy.checkpoint_io = usual
    checkpoint = taker.taken
    if not checkpoint:
        return {}
    for key in _hyperparameter_keys(trainer):  # objects of any kind, which a fit does not read
        checkpoint.pop(key, None)
    own = set(_identities(pool))
    checkpoint[_WEIGHTS] = {
        key: value
        for key, value in checkpoint[_WEIGHTS].items()
        if not (isinstance(value, Tensor) and _identity(value) in own)
    }
    try:
        encoded: dict[str, Any] = encode_state(checkpoint, name="the state of Lightning's Trainer")
    except TaskError as error:
        raise CheckpointError(
            error.what,
            key=error.key,
            found=error.found,
            fix="a callback's state_dict, and on_save_checkpoint, may give tensors, numbers, "
            "texts, lists and dicts",
        ) from error
    return encoded


def restore_trainer(trainer: Trainer, module: LightningModule, state: Mapping[str, Any]) -> None:
    """Return the parts their state back; the pool's own weights are there already.

    Every process has to call it.

    Args:
        trainer: At the start of a fit, with its optimizers made and its loops not yet running.
        module: What it trains.
        state: From ``capture_trainer``.

    Raises:
        CheckpointError: The state does not fit today's program.
    """
    checkpoint: dict[str, Any] = decode_state(state)
    checkpoint[_WEIGHTS] = {**module.state_dict(), **checkpoint[_WEIGHTS]}
    for key, there in (
        (_OPTIMIZERS, trainer.optimizers),
        (_SCHEDULERS, trainer.lr_scheduler_configs),
    ):
        if len(checkpoint[key]) != len(there):
            raise CheckpointError(
                f"the run has {len(checkpoint[key])} {key.replace('_', ' ')}, and "
                f"configure_optimizers gives {len(there)}",
                key=key,
                found=len(there),
                fix="give as many as the run began with, or begin another run",
            )
    try:
        _restore(trainer, module, checkpoint)
    except PymodulesError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"what the run saved does not fit today's program: {type(error).__name__}: {error}",
            fix="put back what changed in the LightningModule, its optimizers or callbacks, or "
            "begin another run",
        ) from error


def _restore(trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Do what Lightning does with a checkpoint of its own, in its order."""
    strategy, precision = trainer.strategy, trainer.precision_plugin
    data, callbacks = _datamodule(trainer), _callbacks(trainer)
    module.on_load_checkpoint(checkpoint)
    strategy.load_model_state_dict(checkpoint, strict=module.strict_loading)
    if data is not None and type(data).__qualname__ in checkpoint:
        data.load_state_dict(checkpoint[type(data).__qualname__])
    for callback in callbacks:
        callback.on_load_checkpoint(trainer, module, checkpoint)
    for callback in callbacks:
        if found := checkpoint[_CALLBACKS].get(callback.state_key):
            callback.load_state_dict(deepcopy(found))
    precision.on_load_checkpoint(checkpoint)
    if type(precision).__qualname__ in checkpoint:
        precision.load_state_dict(checkpoint[type(precision).__qualname__])
    trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])
    strategy.load_optimizer_state_dict(checkpoint)
    for config, found in zip(trainer.lr_scheduler_configs, checkpoint[_SCHEDULERS], strict=True):
        config.scheduler.load_state_dict(found)


def _datamodule(trainer: Trainer) -> LightningDataModule | None:
    # Lightning sets it outside of Trainer.__init__, where no type checker finds it.
    found: LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # set late
    return found


def _callbacks(trainer: Trainer) -> list[Callback]:
    found: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set late
    return found


def _hyperparameter_keys(trainer: Trainer) -> Iterator[str]:
    for holder in (trainer.lightning_module, _datamodule(trainer)):
        if holder is not None:
            yield holder.CHECKPOINT_HYPER_PARAMS_NAME
            yield holder.CHECKPOINT_HYPER_PARAMS_KEY
            yield holder.CHECKPOINT_HYPER_PARAMS_TYPE


def _identities(pool: ModulePool) -> Iterator[_TENSOR_IDENTITY]:
    for module in pool.values():
        for value in module.state_dict().values():
            if isinstance(value, Tensor):
                yield _identity(value)


def _identity(tensor: Tensor) -> _TENSOR_IDENTITY:
    """Tell tensors apart by their memory: a state dict gives a new object each time."""
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())
