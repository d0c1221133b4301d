"""The state of an optimizer by the names of its parameters.

torch numbers parameters by their place in the optimizer. A name survives another order, other
groups, and modules that come or go.
"""

import copy
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from pymodules_core.training.state.encoding import decode_state, encode_state

logger = logging.getLogger("pymodules_core")

_STATE, _GROUPS = "state", "param_groups"


def parameter_names(pool: ModulePool) -> dict[Parameter, str]:
    """Return each parameter of a pool with its ``module.parameter`` name; shared ones have one."""
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
    numbered, removed = _numbered_state(optimizer)
    names_in_order = [names[parameter] for parameter in parameters_of(optimizer)]
    groups = [
        {
            **encode_state(without_parameters(group), name=f"a group of {name}"),
            PARAMETERS: [names_in_order[number] for number in group[PARAMETERS]],
        }
        for group in numbered.pop(_GROUPS)
    ]
    by_name = {names_in_order[n]: values for n, values in numbered.pop(_STATE).items()}
    by_name |= {names[key]: values for key, values in removed.items() if key in names}
    encoded = {
        key: encode_state(values, name=f"state of {name}") for key, values in by_name.items()
    }
    return {
        _STATE: encoded,
        _GROUPS: groups,
        "more": encode_state(numbered, name=f"state of {name}"),
    }


def _numbered_state(optimizer: Optimizer) -> tuple[dict[str, Any], dict[Parameter, Any]]:
    """Return torch's state dict, and the state of parameters that were removed from all groups.

    torch numbers the parameters of groups, and fails where there is state of another one.
    """
    state: dict[Any, Any] = optimizer.state
    owned = set(parameters_of(optimizer))
    removed = [key for key in state if isinstance(key, Parameter) and key not in owned]
    left = {key: state.pop(key) for key in removed}
    try:
        return dict(optimizer.state_dict()), left
    finally:
        state.update(left)


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
    start_groups: Sequence[Sequence[str]] | None = None,
    keeps_options: bool = False,
) -> LoadedState:
    """Load what ``optimizer_state`` returned, groups that were added during the run included.

    Parameters that it does not know start without state, which is reported.

    Args:
        optimizer: A fresh one.
        stored: The state.
        names: Each parameter of the pool with its name.
        name: What it is called.
        start_groups: The parameters of each group at the start of the run; by default as saved.
        keeps_options: Groups that the task makes keep the options of today.
    """
    by_name = {key: parameter for parameter, key in names.items()}
    saved = stored[_GROUPS]
    if start_groups is None:
        start_groups = [group[PARAMETERS] for group in saved]
    restored = restored_groups(
        saved,
        start_groups,
        [[names[one] for one in group[PARAMETERS]] for group in optimizer.param_groups],
        by_name.keys(),
    )
    known = {key for group in saved for key in group[PARAMETERS]}
    if new := [key for key in restored.names if key not in known | stored[_STATE].keys()]:
        logger.warning(
            "optimizer %r: no state for %s: it starts without state", name, list_words(new)
        )
    if restored.has_changed_groups and not keeps_options:
        logger.warning(
            "optimizer %r had %d parameter groups and has %d: their options are today's",
            name,
            len(start_groups),
            len(optimizer.param_groups),
        )
    _set_groups(optimizer, restored.groups, by_name, keeps_options=keeps_options)
    _load_state(optimizer, stored, by_name, restored.names)
    _restore_removed(optimizer, stored, by_name, {*known, *restored.names})
    gone = known.difference(restored.names, restored.untrained)
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
            optimizer.add_param_group({**decode_state(group.options), **parameters})
        else:
            own = today[group.start]
            if group.options is not None and not keeps_options:
                own |= decode_state(group.options)
            optimizer.param_groups.append(own | parameters)


def _load_state(
    optimizer: Optimizer,
    stored: Mapping[str, Any],
    by_name: Mapping[str, Parameter],
    own_names: Sequence[str],
) -> None:
    parameters = [by_name[key] for key in own_names]
    states = {
        number: _distributed(decode_state(stored[_STATE][key]), parameters[number])
        for number, key in enumerate(own_names)
        if key in stored[_STATE]
    }
    numbers = iter(range(len(own_names)))
    groups = [
        {**group, PARAMETERS: [next(numbers) for _ in group[PARAMETERS]]}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict({_STATE: states, _GROUPS: groups, **decode_state(stored["more"])})
    for number, values in states.items():
        _keep_dtypes(optimizer.state.get(parameters[number], {}), values)


def _restore_removed(
    optimizer: Optimizer,
    stored: Mapping[str, Any],
    by_name: Mapping[str, Parameter],
    grouped: Collection[str],
) -> None:
    """Restore the state of parameters that were removed from all groups."""
    for key, values in stored[_STATE].items():
        if key in by_name and key not in grouped:
            optimizer.state[by_name[key]] = _distributed(decode_state(values), by_name[key])


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


def _distributed(state: dict[str, Any], parameter: Parameter) -> dict[str, Any]:
    """Return the state of a parameter sharded as the parameter itself."""
    if not is_dtensor(parameter):
        return state
    return {
        key: distribute_like(value, parameter)
        if isinstance(value, torch.Tensor) and value.dim()
        else value
        for key, value in state.items()
    }


def _keep_dtypes(live: dict[str, Any], stored: Mapping[str, Any]) -> None:
    """Undo torch's cast of state to the parameter's dtype, which loses bits."""
    for key, value in stored.items():
        found = live.get(key)
        if not isinstance(value, torch.Tensor) or not isinstance(found, torch.Tensor):
            continue
        if found.dtype != value.dtype:
            live[key] = distribute_like(value, found)


def options_of(optimizer: Optimizer, *, name: str) -> list[Any]:
    """Return the options of each parameter group as primitives and tensors.

    Raises:
        TaskError: One would not come back from a file.
    """
    return [
        copy.deepcopy(encode_state(without_parameters(group), name=f"a group of {name}"))
        for group in optimizer.param_groups
    ]
