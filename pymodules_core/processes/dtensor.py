"""Tensors of which each process holds a part.

FSDP2 makes parameters ``DTensor``s. Their package takes half a second to import, so it is looked up
and never imported here: where nobody did, there is none.
"""

import sys
from typing import Any, TypeGuard

import torch

from pymodules_core.moved import moved_names


def is_dtensor(tensor: object) -> TypeGuard[Any]:
    """Tell whether a tensor is a ``DTensor``."""
    package = sys.modules.get("torch.distributed.tensor")
    return package is not None and isinstance(tensor, package.DTensor)


def is_sharded(module: torch.nn.Module) -> bool:
    """Tell whether FSDP2 gathers a module around its calls, its parts apart."""
    package = sys.modules.get("torch.distributed.fsdp")
    return package is not None and isinstance(module, package.FSDPModule)


def unsharded_leaves(module: torch.nn.Module) -> dict[torch.nn.Parameter, torch.nn.Parameter]:
    """Return for each parameter of a sharded module the tensor that its forward computes with.

    They stay the same objects for the module's life; their memory is there while it is gathered.
    Every process has to call it: each part is gathered once.
    """
    leaf_of: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    parts: list[Any] = [part for part in module.modules() if is_sharded(part)]
    for part in parts:
        sharded = list(part.parameters())
        part.unshard()
        pairs = zip(sharded, part.parameters(), strict=True)
        leaf_of |= {parameter: leaf for parameter, leaf in pairs if leaf is not parameter}
        part.reshard()
    return leaf_of


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Give the part of a tensor that this process holds: all of it, unless it is in parts."""
    if not is_dtensor(tensor):
        return tensor
    part: torch.Tensor = tensor.to_local()
    return part


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Give the whole of a tensor; every process has to call it for one that is in parts."""
    if not is_dtensor(tensor):
        return tensor
    whole: torch.Tensor = tensor.full_tensor()
    return whole


def distribute_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Put a tensor that every process has where another one is: on its device, or in such parts.

    Args:
        whole: The same in every process.
        like: Says where. A tensor of another shape than it, which is no number, is put whole into
            each process, in the form that can be computed with one in parts.
    """
    if not is_dtensor(like) or is_dtensor(whole):
        return whole.to(like.device)
    if not whole.dim():
        return whole.to(like.device)
    package = sys.modules["torch.distributed.tensor"]
    placements = like.placements
    if whole.shape != like.shape:
        placements = [package.Replicate()] * len(placements)
    placed: torch.Tensor = package.distribute_tensor(
        whole.to(like.device), like.device_mesh, placements, src_data_rank=None
    )
    return placed


def empty_local_tensor(like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Give a tensor in the same parts as another, on the CPU, whose values are still to be set."""
    package = sys.modules["torch.distributed.tensor"]
    part = torch.empty(local_tensor(like).shape, dtype=dtype)
    made: torch.Tensor = package.DTensor.from_local(
        part,
        like.device_mesh,  # type: ignore[attr-defined]  # it is in parts
        like.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
    return made


def offsets_of(like: torch.Tensor) -> tuple[int, ...]:
    """Give where this process's part of a tensor begins in the whole one."""
    utils = sys.modules["torch.distributed.tensor"]._utils
    _, offsets = utils.compute_local_shape_and_global_offset(
        like.shape,
        like.device_mesh,  # type: ignore[attr-defined]  # it is in parts
        like.placements,  # type: ignore[attr-defined]
    )
    return tuple(offsets)


__getattr__ = moved_names(__name__)
