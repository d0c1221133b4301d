"""The state of an optimizer by the names of its parameters.

torch numbers parameters by their place in the optimizer. A name survives another order, other
groups, and modules that come or go.
"""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from pymodules_core.errors import list_words
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.dtensor import distribute_like, is_dtensor
from pymodules_core.training.optim.parameter_groups import (
    PARAMETERS,
    RestoredGroup,
    RestoredGroups,
    restored_groups,
    without_parameters,
)
from pymodules_core.training.state.encoding import decode, encode

logger = logging.getLogger("pymodules_core")

_STATE, _GROUPS = "state", "param_groups"


def parameter_names(pool: ModulePool) -> dict[Parameter, str]:
    """Give each parameter of a pool with its ``module.parameter`` name; shared ones have one."""
    found: dict[Parameter, str] = {}
    for name, module in pool.items():
        for key, parameter in module.named_parameters():
            found.setdefault(parameter, f"{name}.{key}")
    return found


def parameters_of(optimizer: Optimizer) -> list[Parameter]:
    """Return the parameters of all groups of an optimizer."""
    return [parameter for group in optimizer.param_groups for parameter in group[PARAMETERS]]


def optimizer_state(
    optimizer: Optimizer, names: Mapping[Parameter, str], *, name: str
) -> dict[str, Any]:
    """Return an optimizer's state dict with names for numbers.

    State of a parameter that was removed from all groups is kept: it may be added again.

    Args:
        optimizer: The optimizer; nothing of it changes, also before its first step.
        names: Each parameter of the pool with its name.
        name: What it is called, for messages.

    Raises:
        TaskError: Something in it would not come back from a file.
    """
    owned = set(parameters_of(optimizer))
    state: dict[Any, Any] = optimizer.state
    # torch's own knows no parameter that was removed from all groups, and fails.
    removed = [key for key in state if isinstance(key, Parameter) and key not in owned]
    left = {key: state.pop(key) for key in removed}
    try:
        given = optimizer.state_dict()
    finally:
        state.update(left)
    names_in_order = [names[parameter] for parameter in parameters_of(optimizer)]
    groups = [
        {
            **encode(without_parameters(group), name=f"a group of {name}"),
            PARAMETERS: [names_in_order[number] for number in group[PARAMETERS]],
        }
        for group in given[_GROUPS]
    ]
    by_name = {names_in_order[number]: values for number, values in given[_STATE].items()}
    by_name |= {names[key]: values for key, values in left.items() if key in names}
    encoded = {key: encode(values, name=f"state of {name}") for key, values in by_name.items()}
    more = {key: value for key, value in given.items() if key not in {_STATE, _GROUPS}}
    return {_STATE: encoded, _GROUPS: groups, "more": encode(more, name=f"state of {name}")}


@attrs.frozen(kw_only=True)
class LoadedState:
    """What came of loading.

    Attributes:
        starts: For each group which of the task's own it is; None for one that was added.
        lost: What could not be restored, a line each.
    """

    starts: list[int | None]
    lost: list[str]


def load_optimizer_state(
    optimizer: Optimizer,
    stored: Mapping[str, Any],
    names: Mapping[Parameter, str],
    *,
    name: str,
    began: Sequence[Sequence[str]] | None = None,
    keeps_options: bool = False,
) -> LoadedState:
    """Load what ``optimizer_state`` returned, groups that were added during the run included.

    Parameters that it does not know start without state, which is reported.

    Args:
        optimizer: A fresh one.
        stored: The state.
        names: Each parameter of the pool with its name.
        name: What it is called.
        began: The parameters of each group when the run began; by default those that were saved.
        keeps_options: Groups that the task makes keep the options of today.
    """
    by_name = {key: parameter for parameter, key in names.items()}
    saved = stored[_GROUPS]
    restored = restored_groups(
        saved,
        [group[PARAMETERS] for group in saved] if began is None else began,
        [[names[one] for one in group[PARAMETERS]] for group in optimizer.param_groups],
        by_name.keys(),
    )
    own_names = restored.names
    known = {key for group in saved for key in group[PARAMETERS]}
    if new := [key for key in own_names if key not in known | stored[_STATE].keys()]:
        logger.warning(
            "optimizer %r: no state for %s: it starts without state", name, list_words(new)
        )
    if not keeps_options and any(
        group.start is not None and group.options is None for group in restored.groups
    ):
        logger.warning(
            "optimizer %r had %d parameter groups and has %d: their options are today's",
            name,
            len(saved if began is None else began),
            len(optimizer.param_groups),
        )
    _set_groups(optimizer, restored.groups, by_name, keeps_options=keeps_options)
    _load_state(optimizer, stored, by_name, own_names)
    for key in stored[_STATE].keys() - known - set(own_names):
        if key in by_name:
            optimizer.state[by_name[key]] = _placed(decode(stored[_STATE][key]), by_name[key])
    gone = known.difference(own_names, restored.untrained)
    return LoadedState(
        starts=[group.start for group in restored.groups],
        lost=list(_losses(restored, sorted(gone), name)),
    )


def _set_groups(
    optimizer: Optimizer,
    groups: Sequence[RestoredGroup],
    by_name: Mapping[str, Parameter],
    *,
    keeps_options: bool,
) -> None:
    today = list(optimizer.param_groups)
    optimizer.param_groups.clear()
    for group in groups:
        parameters = {PARAMETERS: [by_name[key] for key in group.parameters]}
        if group.start is None:
            optimizer.add_param_group({**decode(group.options), **parameters})
        else:
            own = today[group.start]
            if group.options is not None and not keeps_options:
                own |= decode(group.options)
            optimizer.param_groups.append(own | parameters)


def _load_state(
    optimizer: Optimizer,
    stored: Mapping[str, Any],
    by_name: Mapping[str, Parameter],
    own_names: Sequence[str],
) -> None:
    parameters = [by_name[key] for key in own_names]
    states = {
        number: _placed(decode(stored[_STATE][key]), parameters[number])
        for number, key in enumerate(own_names)
        if key in stored[_STATE]
    }
    numbers = iter(range(len(own_names)))
    groups = [
        {**group, PARAMETERS: [next(numbers) for _ in group[PARAMETERS]]}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict({_STATE: states, _GROUPS: groups, **decode(stored["more"])})
    for number, values in states.items():
        _keep_dtypes(optimizer.state.get(parameters[number], {}), values)


def _losses(restored: RestoredGroups, gone: Sequence[str], name: str) -> Iterator[str]:
    if restored.untrained:
        yield untrained_line(name, restored.untrained)
    if restored.undone:
        yield (
            f"optimizer {name!r}: {list_words(restored.undone)} had been moved or removed by the "
            "run, and is where the task's other groups of today put it"
        )
    if gone:
        yield f"optimizer {name!r}: no parameter for the state of {list_words(gone)}"


def untrained_line(name: str, parameters: Sequence[str]) -> str:
    """Return what is reported of parameters that were added to an optimizer during the run."""
    return (
        f"optimizer {name!r}: not trained any more: {list_words(parameters)}, which the run added "
        "to it"
    )


def _placed(state: dict[str, Any], parameter: Parameter) -> dict[str, Any]:
    """Give the state of a parameter in the parts that it is in itself."""
    if not is_dtensor(parameter):
        return state
    return {
        key: distribute_like(value, parameter)
        if isinstance(value, torch.Tensor) and value.dim()
        else value
        for key, value in state.items()
    }


def split_off_sharded(
    state: Mapping[str, Any], names: Mapping[Parameter, str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Take the state of parameters in parts out of that of an optimizer.

    Args:
        state: What ``optimizer_state`` gave.
        names: The name of each parameter of the pool.

    Returns:
        The rest, and module name to parameter name to what was taken out.
    """
    in_parts = {name for parameter, name in names.items() if is_dtensor(parameter)}
    rest = {key: value for key, value in state[_STATE].items() if key not in in_parts}
    per_module: dict[str, dict[str, Any]] = {}
    for key in state[_STATE].keys() & in_parts:
        per_module.setdefault(key.partition(".")[0], {})[key] = state[_STATE][key]
    return {**state, _STATE: rest}, {
        name: dict(sorted(found.items())) for name, found in sorted(per_module.items())
    }


def _keep_dtypes(live: dict[str, Any], stored: Mapping[str, Any]) -> None:
    """Undo torch's cast of state to the parameter's dtype, which would lose bits."""
    for key, value in stored.items():
        found = live.get(key)
        if not isinstance(value, torch.Tensor) or not isinstance(found, torch.Tensor):
            continue
        if found.dtype != value.dtype:
            live[key] = distribute_like(value, found)


def options_of(optimizer: Optimizer, *, name: str) -> list[Any]:
    """Give the options of each parameter group as primitives and tensors.

    Raises:
        TaskError: One would not come back from a file.
    """
    return [
        copy.deepcopy(encode(without_parameters(group), name=f"a group of {name}"))
        for group in optimizer.param_groups
    ]
