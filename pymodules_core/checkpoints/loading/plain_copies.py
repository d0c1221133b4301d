"""Tells where loading is copying and nothing else, so that it needs neither hooks nor snapshots."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

# Batch norm's own only supplies a count of batches that old files lack.
_PLAIN_LOADS = {nn.Module._load_from_state_dict, _NormBase._load_from_state_dict}
_PLAIN_TENSORS = {torch.Tensor, nn.Parameter, nn.Buffer}


def find_plain_copies(
    module: nn.Module, state: Mapping[str, Any]
) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
    """Give what ``load_state_dict`` would copy, where copying is all it would do and cannot fail.

    Args:
        module: Not wrapped.
        state: Keys of the module to values of the same shapes.

    Returns:
        Each tensor of the module with its new values; None where some module has hooks, extra
        state or a loading of its own, or where a tensor is not an ordinary dense one.
    """
    if torch.__future__.get_swap_module_params_on_conversion():
        return None
    if not all(map(_has_plain_loading, module.modules())):
        return None
    own = dict(
        chain[tuple[str, torch.Tensor]](
            module.named_parameters(remove_duplicate=False),
            module.named_buffers(remove_duplicate=False),
        )
    )
    copies = []
    for key, value in state.items():
        tensor = own.get(key)
        if tensor is None or not isinstance(value, torch.Tensor) or not _is_plain(tensor):
            return None
        copies.append((tensor, value))
    return copies


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
