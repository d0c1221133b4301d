"""``run.optimize``: which losses update which optimizer, and a task's optimizers as units."""

import inspect
import math
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pymodules_core.errors import TaskError
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.group import Processes
from pymodules_core.processes.sharding import is_in_parts
from pymodules_core.settings import OptimizerSettings
from pymodules_core.training.optimizer_unit import OptimizerUnit, Precision
from pymodules_core.training.parallel import SharedModules

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor
    from torch.nn import Parameter


class OptimizeBlock:
    """``with run.optimize(name) as step:`` - what it computes updates one optimizer.

    Its losses give gradients to the parameters of that optimizer only. What is computed inside
    keeps its whole graph, so that a later block can train through it.

    Args:
        unit: The optimizer.
        stepped: Receives its name if it updates.

    Attributes:
        loss: Set it inside the block; ``backward`` is there for several losses.
        name: The optimizer's name.
        total: Sum of the losses, detached; None before the first.
        is_open: The block has begun and not ended.
        is_over: The block has begun and ended.
        is_skipped: One of its losses was not finite and is left out, and with it the update.
    """

    __slots__ = (
        "_held",
        "_stepped",
        "_unit",
        "is_open",
        "is_over",
        "is_skipped",
        "loss",
        "name",
        "total",
    )

    def __init__(self, unit: OptimizerUnit, stepped: set[str]) -> None:
        self.loss: Tensor | None = None
        self.total: Tensor | None = None
        self._held: Tensor | None = None
        self.name = unit.name
        self.is_open = False
        self.is_over = False
        self._unit = unit
        self._stepped = stepped
        self.is_skipped = False

    def backward(self, loss: "Tensor") -> None:
        """Add the gradients of one of several losses.

        Where DDP averages them over processes, which it does in one backward, the gradients of all
        losses are computed at the end of the block.
        """
        if self._unit.takes_one_backward:
            self._held = loss if self._held is None else self._held + loss
            return
        self._backward(loss)

    def _backward(self, loss: "Tensor") -> None:
        if not self._unit.backward(loss):
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
                f"run.optimize({self._unit.name!r}) ended without a loss",
                fix="set step.loss, or call step.backward(loss), inside the block",
            )
        if not self.is_skipped:
            if self._unit.close_micro_step():
                self._stepped.add(self._unit.name)
        elif self.total is not None:
            self._unit.drop_window()


def make_units(
    optimizers: Mapping[str, Optimizer],
    *,
    schedulers: Mapping[str, Any],
    settings: Mapping[str, OptimizerSettings],
    owners: "Mapping[Parameter, str]",
    precision: Precision,
    skip_nonfinite: bool,
    processes: Processes,
    modules: SharedModules,
) -> dict[str, OptimizerUnit]:
    """Check the optimizers of a task and make a unit of each.

    Args:
        optimizers: By name.
        schedulers: By optimizer name, for those that have one.
        settings: ``[optimizers]``.
        owners: Each trained parameter of the pool with its ``module.parameter`` name.
        precision: Autocast of the steps.
        skip_nonfinite: See ``OptimizerUnit``.
        processes: Who trains together.
        modules: How they share the modules.

    Raises:
        TaskError: A parameter belongs to two optimizers.
    """
    taken: dict[Parameter, str] = {}
    units = {}
    parameters = {
        name: [p for group in optimizer.param_groups for p in group["params"]]
        for name, optimizer in optimizers.items()
    }
    shares = modules.hand_out(parameters)
    owned = {p for own in parameters.values() for p in own}
    unowned = [p for p in owners if p not in owned]
    for name, optimizer in optimizers.items():
        own = set(parameters[name])
        for parameter, owner in owners.items():
            if parameter in own:
                first = taken.setdefault(parameter, name)
                if first != name:
                    raise TaskError(
                        f"optimizers {first!r} and {name!r} both own {owner}",
                        key=owner,
                        fix="give each parameter to one optimizer",
                    )
        _refuse_mixed(name, optimizer)
        units[name] = OptimizerUnit(
            name,
            optimizer,
            is_single=len(optimizers) == 1,
            unowned=unowned,
            settings=settings.get(name, OptimizerSettings()),
            scheduler=schedulers.get(name),
            precision=precision,
            skip_nonfinite=skip_nonfinite,
            processes=processes,
            modules=shares[name],
        )
    return units


def _refuse_mixed(name: str, optimizer: Optimizer) -> None:
    """Refuse an optimizer that takes all parameters in one call where some are in parts."""
    for group in optimizer.param_groups:
        option = next((one for one in ("foreach", "fused") if group.get(one)), None)
        if option is not None and len({is_in_parts(p) for p in group["params"]}) > 1:
            raise TaskError(
                f"optimizer {name!r} has {option}=True, and of its parameters some are in parts "
                'under FSDP2 (parallel = "fsdp") and some are whole, which torch cannot mix',
                found=option,
                fix=f"leave {option} out, or give them a parameter group each",
            )


def check_owned(name: str, optimizer: Optimizer, pool: ModulePool) -> None:
    """Refuse an optimizer that a run could not use.

    Args:
        name: Its name.
        optimizer: The optimizer.
        pool: Holds all that is saved.

    Raises:
        TaskError: It owns a parameter that is frozen, in no module of the pool, or there twice, or
            its learning rate is not finite.
    """
    seen: set[int] = set()
    owners = {
        id(parameter): (module_name, key)
        for module_name, module in pool.items()
        for key, parameter in module.named_parameters()
    }
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TaskError(
            f"optimizer {name!r} is {type(optimizer).__name__}, which computes the loss itself, "
            "several times a step",
            found=optimizer,
            fix="take one that uses the gradients it is given: AdamW, SGD",
        )
    for group in optimizer.param_groups:
        # Adam refuses NaN itself, SGD takes it.
        if not math.isfinite(rate := float(group.get("lr", 0.0))):
            raise TaskError(
                f"optimizer {name!r} has the learning rate {rate}",
                found=rate,
                fix="give it a finite one",
            )
        for parameter in group["params"]:
            owner = owners.get(id(parameter))
            if owner is None:
                raise TaskError(
                    f"optimizer {name!r} owns a parameter of shape {list(parameter.shape)} "
                    "that is in no module of the pool, so it would never be saved",
                    fix="put it into a module of the pool",
                )
            if pool.is_frozen(owner[0]):
                raise TaskError(
                    f"optimizer {name!r} owns {owner[0]}.{owner[1]}, and module {owner[0]!r} is "
                    "frozen",
                    found=".".join(owner),
                    fix=f'leave it out of the optimizer, or set "frozen": False for {owner[0]!r}',
                )
            if id(parameter) in seen:  # torch only warns, and updates it twice a step
                raise TaskError(
                    f"optimizer {name!r} owns {owner[0]}.{owner[1]} twice",
                    found=".".join(owner),
                    fix="give it each parameter once; modules may share some",
                )
            seen.add(id(parameter))


def is_scheduler(value: object) -> bool:
    """Tell whether a task's scheduler is one of torch's."""
    return isinstance(value, LRScheduler | ReduceLROnPlateau)
