"""``run.optimize``: which losses update which optimizer, and the managed optimizers of a task."""

from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pymodules_core.errors import TaskError
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.group import Processes
from pymodules_core.settings import OptimizerSettings
from pymodules_core.training.optim.managed_optimizer import ManagedOptimizer
from pymodules_core.training.optim.named_state import parameter_names
from pymodules_core.training.optim.ownership import check_ownership
from pymodules_core.training.optim.precision import Precision
from pymodules_core.training.parallel import SharedModules

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor


@attrs.define(eq=False, repr=False)
class OptimizeBlock:
    """``with run.optimize(name) as step:`` - what it computes updates one optimizer.

    Its losses give gradients to the parameters of that optimizer only. What is computed inside
    keeps its whole graph, so that a later block can train through it.

    Args:
        optimizer: What it updates.
        stepped: Receives its name if it updates.

    Attributes:
        loss: Set it inside the block; ``backward`` is there for several losses.
        total: Sum of the losses, detached; None before the first.
        is_open: The block has begun and not ended.
        is_over: The block has begun and ended.
        is_skipped: One of its losses was not finite and is left out, and with it the update.
    """

    _optimizer: ManagedOptimizer
    _stepped: set[str]
    loss: "Tensor | None" = attrs.field(default=None, init=False)
    total: "Tensor | None" = attrs.field(default=None, init=False)
    is_open: bool = attrs.field(default=False, init=False)
    is_over: bool = attrs.field(default=False, init=False)
    is_skipped: bool = attrs.field(default=False, init=False)
    _held: "Tensor | None" = attrs.field(default=None, init=False)

    @property
    def name(self) -> str:
        """The optimizer's name."""
        return self._optimizer.name

    def backward(self, loss: "Tensor") -> None:
        """Add the gradients of one of several losses.

        Where DDP averages them over processes, which it does in one backward, the gradients of all
        losses are computed at the end of the block.
        """
        if self._optimizer.takes_one_backward:
            self._held = loss if self._held is None else self._held + loss
            return
        self._backward(loss)

    def _backward(self, loss: "Tensor") -> None:
        if not self._optimizer.backward(loss):
            self.is_skipped = True
            return
        value = loss.detach()
        self.total = value if self.total is None else self.total + value

    def __enter__(self) -> "Self":
        self.is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self.is_open, self.is_over = False, True

    def _finish(self) -> None:
        if self.loss is not None:
            self.backward(self.loss)
        if self._held is not None:
            self._backward(self._held)
            self._held = None
        elif self.total is None and not self.is_skipped:
            raise TaskError(
                f"run.optimize({self._optimizer.name!r}) ended without a loss",
                fix="set step.loss, or call step.backward(loss), inside the block",
            )
        if not self.is_skipped:
            if self._optimizer.close_micro_step():
                self._stepped.add(self._optimizer.name)
        elif self.total is not None:
            self._optimizer.drop_window()


def manage_optimizers(
    optimizers: Mapping[str, Optimizer],
    *,
    schedulers: Mapping[str, Any],
    settings: Mapping[str, OptimizerSettings],
    pool: ModulePool,
    precision: Precision,
    skip_nonfinite: bool,
    processes: Processes,
    modules: SharedModules,
) -> dict[str, ManagedOptimizer]:
    """Check the optimizers of a task and return each as a ``ManagedOptimizer``.

    Args:
        optimizers: By name.
        schedulers: By optimizer name, for those that have one.
        settings: ``[optimizers]``.
        pool: Holds all that is saved.
        precision: Autocast of the steps.
        skip_nonfinite: See ``ManagedOptimizer``.
        processes: Who trains together.
        modules: How they share the modules.

    Raises:
        TaskError: A parameter belongs to two optimizers, or ``check_owned`` refuses one.
    """
    check = partial(check_ownership, optimizers, pool, parameter_names(pool))
    check()
    owned = modules.assign(optimizers)
    return {
        name: ManagedOptimizer(
            name=name,
            optimizer=optimizer,
            is_single=len(optimizers) == 1,
            check_ownership=check,
            settings=settings.get(name, OptimizerSettings()),
            scheduler=schedulers.get(name),
            precision=precision,
            skip_nonfinite=skip_nonfinite,
            processes=processes,
            modules=owned[name],
        )
        for name, optimizer in optimizers.items()
    }


def is_scheduler(value: object) -> bool:
    """Return whether a task's scheduler is one of torch's."""
    return isinstance(value, LRScheduler | ReduceLROnPlateau)
