"""One process acts, all learn what came of it."""

from collections.abc import Callable
from typing import Any, TypeVar

from lightning.pytorch import Trainer

from pymodules_core.errors import CheckpointError, PymodulesError

ResultT = TypeVar("ResultT")


def on_first_process(trainer: Trainer, act: Callable[[], ResultT]) -> ResultT:
    """Call ``act`` in the first process and return its result in every one.

    Args:
        trainer: Its strategy connects the processes; each of them has to call this.
        act: Called once.

    Raises:
        PymodulesError: What ``act`` raised. It is raised everywhere, so that no process waits for
            one that is gone.
    """
    if trainer.world_size == 1:
        return act()
    result: Any = None
    error: PymodulesError | None = None
    if trainer.is_global_zero:
        try:
            result = act()
        except PymodulesError as raised:
            error = raised
    # As text: what an error holds besides need not be picklable.
    outcome = (result, None if error is None else str(error))
    shared, message = trainer.strategy.broadcast(outcome)
    if error is not None:
        raise error
    if message is not None:
        raise CheckpointError(f"the first process failed: {message}")
    given: ResultT = shared
    return given
