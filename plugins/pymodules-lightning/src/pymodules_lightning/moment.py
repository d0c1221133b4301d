"""What a commit keeps besides weights, so that a run resumes from it as if it had never stopped."""

from collections.abc import Mapping
from typing import Any, TypeGuard

from lightning.pytorch import LightningModule, Trainer

from pymodules_core import ModulePool
from pymodules_core.errors import CheckpointError
from pymodules_core.plugin_api import random_state, restore_random_state
from pymodules_lightning.trainer_state import capture_trainer, restore_trainer

_FORMAT = 1
_MARK = "lightning_format"


def is_moment(state: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Return whether ``capture_moment`` gave it, and not another trainer."""
    return state is not None and state.get(_MARK) == _FORMAT


def capture_moment(
    trainer: Trainer, pool: ModulePool, *, last_epoch_pool: int, is_epoch_end: bool
) -> dict[str, Any]:
    """Return all of the state but the pool's weights; every process has to call it.

    Args:
        trainer: In a fit.
        pool: The modules.
        last_epoch_pool: The last epoch with a pool ``epoch_<n>``.
        is_epoch_end: Whether a train epoch just ended.

    Raises:
        CheckpointError: A part of the program gives what no checkpoint can hold.
    """
    return {
        _MARK: _FORMAT,
        "trainer": capture_trainer(trainer, pool),
        "epochs_done": _epochs_done(trainer),
        "random": random_state(),
        "plateaus": _plateaus_ahead(trainer) if is_epoch_end else [],
        "last_epoch_pool": last_epoch_pool,
    }


def restore_moment(trainer: Trainer, module: LightningModule, state: Mapping[str, Any]) -> int:
    """Put everything but the pool's weights back; every process has to call it.

    Args:
        trainer: At the start of a fit.
        module: What it trains.
        state: From ``capture_moment``.

    Returns:
        The last epoch with a pool ``epoch_<n>``.

    Raises:
        CheckpointError: The state does not fit today's program.
    """
    restore_trainer(trainer, module, state["trainer"])
    if (reached := _epochs_done(trainer)) != state["epochs_done"]:
        raise CheckpointError(
            f"the weights are of epoch {state['epochs_done']}, and Lightning would continue after "
            f"epoch {reached}",
            found=reached,
            fix="resume with the version of Lightning that the run began with, or start a new run",
        )
    for number, value in state["plateaus"]:
        module.lr_scheduler_step(trainer.lr_scheduler_configs[number].scheduler, value)
    # The streams are those of one process; given to all, they would draw the same.
    if trainer.world_size == 1:
        restore_random_state(state["random"])
    last_epoch_pool: int = state["last_epoch_pool"]
    return last_epoch_pool


def _epochs_done(trainer: Trainer) -> int:
    # Trainer.current_epoch is set from it only when the loop runs.
    done: int = trainer.fit_loop.state_dict()["epoch_progress"]["current"]["processed"]
    return done


def _plateaus_ahead(trainer: Trainer) -> list[tuple[int, float]]:
    """Return the steps of ``ReduceLROnPlateau`` that Lightning takes only after a commit.

    It takes them once every callback knows of the epoch's end, and skips them where a fit goes
    on from a checkpoint of that moment, because it keeps no metrics.

    Returns:
        The number of a scheduler and the value it gets.
    """
    if not trainer.lightning_module.automatic_optimization:
        return []
    metrics = trainer.callback_metrics
    return [
        (number, float(metrics[config.monitor]))
        for number, config in enumerate(trainer.lr_scheduler_configs)
        if config.reduce_on_plateau
        and config.interval == "epoch"
        and (trainer.current_epoch + 1) % config.frequency == 0
        and config.monitor in metrics
    ]
