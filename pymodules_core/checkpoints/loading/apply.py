"""Copies matched weights into live modules: all modules or none."""

import contextlib
import copy
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pymodules_core.checkpoints.file_format.state_dict import same_bytes, show_key, unwrap
from pymodules_core.checkpoints.loading.match import LoadReport, match_weights
from pymodules_core.checkpoints.loading.migrate import bring_to_today
from pymodules_core.checkpoints.loading.pool_reader import StoredModule
from pymodules_core.errors import CheckpointError, WeightMismatchError, display_path
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.dtensor import distribute_like, is_dtensor

logger = logging.getLogger("pymodules_core")

# Batch norm's own only supplies a count of batches that old files lack.
_PLAIN_LOADS = {nn.Module._load_from_state_dict, _NormBase._load_from_state_dict}
_PLAIN_TENSORS = {torch.Tensor, nn.Parameter, nn.Buffer}

Matched = tuple[nn.Module, Mapping[str, Any], LoadReport]


def apply_weights(loads: Iterable[Matched]) -> None:
    """Copy what ``match_weights`` gave into its modules; on an error all are as they were before.

    Where a module has code of its own for it, ``load_state_dict`` runs. It copies key by key, and
    that code may raise between two of them: hence the snapshots. All other modules need none, since
    everything was compared: they are copied last, in one call that no signal interrupts.

    Args:
        loads: Module, the weights that fit, and the report, of each module.

    Raises:
        WeightMismatchError: One tensor of two modules, or under two keys, would get two values.
        CheckpointError: A module's own hook or ``set_extra_state`` raises.
    """
    loads = list(loads)
    _refuse_torn_ties(loads)
    snapshots: list[_Snapshot] = []
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for module, state, report in loads:
            inner = unwrap(module)
            own = _named_tensors(inner)
            if _is_plain_copy(inner, own, state):
                copies += [(own[key], value) for key, value in state.items()]
            else:
                snapshots.append(_Snapshot.take(inner))
                _load_state_dict(inner, state, report)
        _copy_all(copies)
    except BaseException:
        for snapshot in reversed(snapshots):
            snapshot.restore()
        raise
    for _, _, report in loads:
        _warn_of_doubts(report)


def _copy_all(copies: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    if copies:  # torch refuses to copy nothing
        with torch.no_grad():
            torch._foreach_copy_([own for own, _ in copies], [new for _, new in copies])


def _warn_of_doubts(report: LoadReport) -> None:
    for key, doubt in report.doubtful.items():
        logger.warning(
            "weights of %s: %s: %s, loaded from %s anyway",
            report.module_name,
            show_key(key),
            doubt,
            display_path(report.source),
        )


def _load_state_dict(module: nn.Module, state: Mapping[str, Any], report: LoadReport) -> None:
    try:
        module.load_state_dict(_in_place_of(module, state), strict=False)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise CheckpointError(
            f"loading into module {report.module_name!r} raises {type(error).__name__}: {reason}",
            file=report.source,
            key=report.module_name,
            fix="let the module's set_extra_state and load_state_dict hooks accept the file; "
            "no module was changed",
        ) from error


def _is_plain_copy(
    module: nn.Module, own: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> bool:
    """Return whether copying is all that ``load_state_dict`` would do, and cannot fail.

    It is not where some module has hooks, extra state or a loading of its own, or where a tensor
    is not an ordinary dense one.
    """
    return (
        not torch.__future__.get_swap_module_params_on_conversion()
        and all(map(_has_plain_loading, module.modules()))
        and all(
            key in own and isinstance(value, torch.Tensor) and _is_plain(own[key])
            for key, value in state.items()
        )
    )


def _has_plain_loading(module: nn.Module) -> bool:
    kind = type(module)
    return (
        kind._load_from_state_dict in _PLAIN_LOADS
        and kind.load_state_dict is nn.Module.load_state_dict
        and kind.set_extra_state is nn.Module.set_extra_state
        and not module._load_state_dict_pre_hooks
        and not module._load_state_dict_post_hooks
        and not {"_load_from_state_dict", "load_state_dict"} & vars(module).keys()
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) in _PLAIN_TENSORS
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_inference()
        # Else elements may share memory, and torch refuses to copy into them.
        and (
            tensor.is_contiguous()
            or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
        )
    )


def _in_place_of(module: nn.Module, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return values distributed as the module's own DTensors; ``copy_`` takes no others."""
    own = {key: value for key, value in module.state_dict().items() if is_dtensor(value)}
    if not own:
        return state
    placed = OrderedDict(
        (key, distribute_like(value, own[key]) if key in own else value)
        for key, value in state.items()
    )
    if hasattr(state, "_metadata"):
        placed._metadata = state._metadata  # type: ignore[attr-defined]  # torch's own attribute
    return placed


def load_modules(
    pool: ModulePool, stored: Mapping[str, StoredModule], *, strict: bool, is_exact: bool = False
) -> dict[str, LoadReport]:
    """Copy what was read of a pool of one's own into live modules, all or none.

    Weights of an older version of a plugin are migrated by it.

    Args:
        pool: The live modules.
        stored: Name to what was read.
        strict: As for ``match_weights``.
        is_exact: As for ``match_weights``.

    Raises:
        WeightMismatchError: A module's keys or shapes differ, or its version cannot be migrated.
        PluginError: A plugin fails to migrate weights.
        CheckpointError: A module's own load hook raises.
    """
    matched = {
        name: match_weights(
            one.state,
            pool[name],
            module_name=name,
            source=one.file,
            strict=strict,
            is_foreign=False,
            is_exact=is_exact,
            migrate=partial(bring_to_today, entry=pool.entries[name], stored=one),
        )
        for name, one in stored.items()
    }
    apply_weights((pool[name], *match) for name, match in matched.items())
    return {name: report for name, (_, report) in matched.items()}


def _refuse_torn_ties(loads: Iterable[Matched]) -> None:
    """Refuse two values for one tensor: the one that is copied last would win in silence."""
    given: dict[int, tuple[str, torch.Tensor]] = {}
    for module, state, report in loads:
        tensors = _named_tensors(unwrap(module))
        for key, value in state.items():
            if key not in tensors or not isinstance(value, torch.Tensor):
                continue
            name = f"{report.module_name}.{key}"
            other, other_value = given.setdefault(id(tensors[key]), (name, value))
            if not same_bytes(value, other_value):
                raise WeightMismatchError(
                    f"{other} and {show_key(name)} are one tensor, and would get different values",
                    file=report.source,
                    key=report.module_name,
                    found=name,
                    fix="load both from one checkpoint, or only one of them",
                )


def _named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(
        chain[tuple[str, torch.Tensor]](
            module.named_parameters(remove_duplicate=False),
            module.named_buffers(remove_duplicate=False),
        )
    )


@attrs.frozen
class _Snapshot:
    """What a module held before a load.

    Attributes:
        tensors: Parameters and buffers, saved or not: their owner, name, and a copy of the values.
        extra_states: Modules with ``get_extra_state``, and a copy of what it gave.
    """

    tensors: list[tuple[nn.Module, str, torch.Tensor, torch.Tensor]]
    extra_states: list[tuple[nn.Module, Any]]

    @classmethod
    def take(cls, module: nn.Module) -> "_Snapshot":
        copies: dict[int, torch.Tensor] = {}
        tensors = []
        extra_states = []
        for child in module.modules():
            named = (child.named_parameters(recurse=False), child.named_buffers(recurse=False))
            for name, tensor in chain[tuple[str, torch.Tensor]](*named):
                values = copies.setdefault(id(tensor), tensor.detach().clone())
                tensors.append((child, name, tensor, values))
            if type(child).get_extra_state is not nn.Module.get_extra_state:
                extra_states.append((child, copy.deepcopy(child.get_extra_state())))
        return cls(tensors, extra_states)

    def restore(self) -> None:
        # First what runs the module's own code: it may change tensors once more.
        for module, extra_state in self.extra_states:
            # It may be what raised; the first error is the one to report.
            with contextlib.suppress(Exception):
                module.set_extra_state(extra_state)
        with torch.no_grad():
            for owner, name, tensor, values in self.tensors:
                # Where elements share memory torch refuses, and nothing can have been copied in.
                with contextlib.suppress(RuntimeError):
                    tensor.copy_(values)
                # A hook may have put another tensor in its place.
                setattr(owner, name, tensor)
