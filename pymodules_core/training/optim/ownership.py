"""Which optimizer may train which parameter; a task may change their groups at any time."""

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch.optim import Optimizer

from pymodules_core.errors import TaskError
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.dtensor import is_dtensor, is_sharded
from pymodules_core.training.optim.named_state import parameter_names, parameters_of

if TYPE_CHECKING:
    from torch.nn import Parameter


def check_ownership(
    optimizers: Mapping[str, Optimizer], pool: ModulePool, names: "Mapping[Parameter, str]"
) -> None:
    """Refuse parameter groups that a run could not use; a task may change them at any time.

    Args:
        optimizers: By name.
        pool: Holds all that is saved.
        names: Each parameter of the pool with its name, looked up while FSDP2 had none gathered.

    Raises:
        TaskError: ``check_owned`` refuses one, or a parameter belongs to two optimizers.
    """
    taken: dict[Parameter, str] = {}
    for name, optimizer in optimizers.items():
        check_owned(name, optimizer, pool, names)
        for parameter in parameters_of(optimizer):
            first = taken.setdefault(parameter, name)
            if first != name:
                owner = names[parameter]
                raise TaskError(
                    f"optimizers {first!r} and {name!r} both own {owner}",
                    key=owner,
                    fix="give each parameter to one optimizer",
                )
        _refuse_mixed(name, optimizer)


def check_owned(
    name: str, optimizer: Optimizer, pool: ModulePool, names: "Mapping[Parameter, str]"
) -> None:
    """Refuse an optimizer that a run could not use.

    Args:
        name: Its name.
        optimizer: The optimizer.
        pool: Holds all that is saved.
        names: As in ``check_ownership``.

    Raises:
        TaskError: It owns a parameter that is frozen, in no module of the pool, or there twice, or
            its learning rate is not finite.
    """
    _refuse_own_loss(name, optimizer)
    if not optimizer.param_groups:
        raise TaskError(
            f"optimizer {name!r} has no parameter group left",
            found=optimizer,
            fix="let it keep one; parameters that are to rest get requires_grad_(False)",
        )
    seen: set[Parameter] = set()
    for group in optimizer.param_groups:
        # Adam refuses NaN itself, SGD takes it.
        if not math.isfinite(rate := float(group.get("lr", 0.0))):
            raise TaskError(
                f"optimizer {name!r} has the learning rate {rate}",
                found=rate,
                fix="give it a finite one",
            )
        for parameter in group["params"]:
            owner = _owner(name, parameter, pool, names)
            if parameter in seen:  # torch only warns, and updates it twice a step
                raise TaskError(
                    f"optimizer {name!r} owns {owner} twice",
                    found=owner,
                    fix="give it each parameter once; modules may share some",
                )
            seen.add(parameter)


def _refuse_own_loss(name: str, optimizer: Optimizer) -> None:
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TaskError(
            f"optimizer {name!r} is {type(optimizer).__name__}, which computes the loss itself, "
            "several times a step",
            found=optimizer,
            fix="take one that uses the gradients it is given: AdamW, SGD",
        )


def _owner(
    name: str, parameter: "Parameter", pool: ModulePool, names: "Mapping[Parameter, str]"
) -> str:
    """Return the name of a parameter that an optimizer may train."""
    owner = names.get(parameter)
    if owner is None:
        raise _not_of_pool(name, parameter, pool)
    module = owner.partition(".")[0]
    if pool.is_frozen(module):
        raise TaskError(
            f"optimizer {name!r} owns {owner}, and module {module!r} is frozen",
            found=owner,
            fix=f'leave it out of the optimizer, or set "frozen": False for {module!r}',
        )
    return owner


def _not_of_pool(name: str, parameter: "Parameter", pool: ModulePool) -> TaskError:
    owner = parameter_names(pool).get(parameter)
    if owner is not None and is_sharded(pool[owner.partition(".")[0]]):
        return TaskError(
            f"optimizer {name!r} was given {owner} while FSDP2 had all of it gathered, which is "
            "another parameter than the part of it that is trained",
            found=owner,
            fix="add it in a hook, or in train_step before the module is called",
        )
    if owner is not None:
        return TaskError(
            f"optimizer {name!r} was given {owner}, which is another parameter than the module had "
            "when the run began",
            found=owner,
            fix="make it in the module file or the module's build; new values can be copied into "
            "the parameter that is there: parameter.data.copy_(...)",
        )
    return TaskError(
        f"optimizer {name!r} owns a parameter of shape {list(parameter.shape)} "
        "that is in no module of the pool, so it would never be saved",
        fix="put it into a module of the pool",
    )


def _refuse_mixed(name: str, optimizer: Optimizer) -> None:
    """Refuse an optimizer that takes all parameters in one call where only some are sharded."""
    for group in optimizer.param_groups:
        option = next((one for one in ("foreach", "fused") if group.get(one)), None)
        if option is not None and len({is_dtensor(p) for p in group["params"]}) > 1:
            raise TaskError(
                f"optimizer {name!r} has {option}=True, and of its parameters some are sharded "
                'under FSDP2 (parallel = "fsdp") and some are whole, which torch cannot mix',
                found=option,
                fix=f"leave {option} out, or give them a parameter group each",
            )
