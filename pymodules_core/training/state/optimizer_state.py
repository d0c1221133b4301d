"""The state of an optimizer by the names of its parameters.

torch numbers parameters by their place in the optimizer. A name survives another order, other
groups, and modules that come or go.
"""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from pymodules_core.errors import TaskError, list_words
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.sharding import is_in_parts, placed_like
from pymodules_core.training.state.encoding import decode, encode

logger = logging.getLogger("pymodules_core")

_STATE, _GROUPS, _PARAMETERS = "state", "param_groups", "params"


def parameter_names(pool: ModulePool) -> dict[Parameter, str]:
    """Give each parameter of a pool with its ``module.parameter`` name; shared ones have one."""
    found: dict[Parameter, str] = {}
    for name, module in pool.items():
        for key, parameter in module.named_parameters():
            found.setdefault(parameter, f"{name}.{key}")
    return found


def optimizer_state(
    optimizer: Optimizer, names: Mapping[Parameter, str], *, name: str
) -> dict[str, Any]:
    """Give an optimizer's state dict with names for numbers.

    Args:
        optimizer: The optimizer; nothing of it changes, also before its first step.
        names: Each of its parameters with its name.
        name: What it is called, for messages.

    Raises:
        TaskError: Something in it would not come back from a file.
    """
    given = optimizer.state_dict()
    names_in_order = [_name_of(parameter, names, name) for parameter in _parameters(optimizer)]
    groups = [
        {
            **encode(_without_parameters(group), name=f"a group of {name}"),
            _PARAMETERS: [names_in_order[number] for number in group[_PARAMETERS]],
        }
        for group in given[_GROUPS]
    ]
    state = {
        names_in_order[number]: encode(values, name=f"state of {name}")
        for number, values in given[_STATE].items()
    }
    more = {key: value for key, value in given.items() if key not in {_STATE, _GROUPS}}
    return {_STATE: state, _GROUPS: groups, "more": encode(more, name=f"state of {name}")}


def load_optimizer_state(
    optimizer: Optimizer,
    stored: Mapping[str, Any],
    names: Mapping[Parameter, str],
    *,
    name: str,
    keeps_options: bool = False,
) -> None:
    """Load what ``optimizer_state`` gave.

    Parameters that it does not know start without state; groups keep today's options where their
    number differs. Both are told.

    Args:
        optimizer: A fresh one.
        stored: The state.
        names: Each of its parameters with its name.
        name: What it is called.
        keeps_options: Take the state of parameters alone, and no option of their groups.
    """
    parameters = _parameters(optimizer)
    own_names = [names[parameter] for parameter in parameters]
    known = {key for group in stored[_GROUPS] for key in group[_PARAMETERS]}
    if new := [key for key in own_names if key not in known]:
        logger.warning("optimizer %r: no state for %s: it begins anew", name, list_words(new))
    if gone := sorted(known.difference(own_names)):
        logger.warning("optimizer %r: no parameter for the state of %s", name, list_words(gone))

    given = optimizer.state_dict()
    if keeps_options:
        groups = given[_GROUPS]
    elif len(given[_GROUPS]) != len(stored[_GROUPS]):
        logger.warning(
            "optimizer %r had %d parameter groups and has %d: their options are today's",
            name,
            len(stored[_GROUPS]),
            len(given[_GROUPS]),
        )
        groups = given[_GROUPS]
    else:
        groups = [
            {**today, **decode(_without_parameters(old)), _PARAMETERS: today[_PARAMETERS]}
            for old, today in zip(stored[_GROUPS], given[_GROUPS], strict=True)
        ]
    states = {
        number: _placed(decode(stored[_STATE][key]), parameters[number])
        for number, key in enumerate(own_names)
        if key in stored[_STATE]
    }
    optimizer.load_state_dict({_STATE: states, _GROUPS: groups, **decode(stored["more"])})
    for number, values in states.items():
        _keep_dtypes(optimizer.state.get(parameters[number], {}), values)


def _placed(state: dict[str, Any], parameter: Parameter) -> dict[str, Any]:
    """Give the state of a parameter in the parts that it is in itself."""
    if not is_in_parts(parameter):
        return state
    return {
        key: placed_like(value, parameter)
        if isinstance(value, torch.Tensor) and value.dim()
        else value
        for key, value in state.items()
    }


def split_off_parts(
    state: Mapping[str, Any], names: Mapping[Parameter, str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Take the state of parameters in parts out of that of an optimizer.

    Args:
        state: What ``optimizer_state`` gave.
        names: The name of each parameter of the pool.

    Returns:
        The rest, and module name to parameter name to what was taken out.
    """
    in_parts = {name for parameter, name in names.items() if is_in_parts(parameter)}
    rest = {key: value for key, value in state[_STATE].items() if key not in in_parts}
    of_modules: dict[str, dict[str, Any]] = {}
    for key in state[_STATE].keys() & in_parts:
        of_modules.setdefault(key.partition(".")[0], {})[key] = state[_STATE][key]
    return {**state, _STATE: rest}, {
        name: dict(sorted(found.items())) for name, found in sorted(of_modules.items())
    }


def _keep_dtypes(live: dict[str, Any], stored: Mapping[str, Any]) -> None:
    """Undo torch's cast of state to the parameter's dtype, which would lose bits."""
    for key, value in stored.items():
        found = live.get(key)
        if not isinstance(value, torch.Tensor) or not isinstance(found, torch.Tensor):
            continue
        if found.dtype != value.dtype:
            live[key] = placed_like(value, found)


def _name_of(parameter: Parameter, names: Mapping[Parameter, str], owner: str) -> str:
    try:
        return names[parameter]
    except KeyError:
        raise TaskError(
            f"{owner} was given a parameter of shape {list(parameter.shape)} that is in no module "
            "of the pool, so it would never be saved",
            key=owner,
            fix="put it into a module of the pool",
        ) from None


def options_of(optimizer: Optimizer, *, name: str) -> list[Any]:
    """Give the options of each parameter group as primitives and tensors.

    Raises:
        TaskError: One would not come back from a file.
    """
    return [
        copy.deepcopy(encode(_without_parameters(group), name=f"a group of {name}"))
        for group in optimizer.param_groups
    ]


def _parameters(optimizer: Optimizer) -> list[Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group[_PARAMETERS]]


def _without_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != _PARAMETERS}
