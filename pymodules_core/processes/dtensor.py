"""Tensors of which each process holds a shard.

FSDP2 makes parameters ``DTensor``s. Their package takes half a second to import, so it is looked up
and never imported here: where nobody did, there is none.
"""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import torch

from pymodules_core.moved import moved_names


def is_dtensor(tensor: object) -> TypeGuard[Any]:
    """Return whether a tensor is a ``DTensor``."""
    package = sys.modules.get("torch.distributed.tensor")
    return package is not None and isinstance(tensor, package.DTensor)


def is_sharded(module: torch.nn.Module) -> bool:
    """Return whether FSDP2 gathers a module around its calls; its submodules are asked alone."""
    package = sys.modules.get("torch.distributed.fsdp")
    return package is not None and isinstance(module, package.FSDPModule)


def unsharded_leaves(module: torch.nn.Module) -> dict[torch.nn.Parameter, torch.nn.Parameter]:
    """Return for each parameter of a sharded module the tensor that its forward computes with.

    They stay the same objects for the module's life; their memory is there while it is gathered.
    Every process has to call it: each FSDP2 submodule is gathered once.
    """
    leaf_of: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    submodules: list[Any] = [one for one in module.modules() if is_sharded(one)]
    for submodule in submodules:
        sharded = list(submodule.parameters())
        submodule.unshard()
        pairs = zip(sharded, submodule.parameters(), strict=True)
        leaf_of |= {parameter: leaf for parameter, leaf in pairs if leaf is not parameter}
        submodule.reshard()
    return leaf_of


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of a tensor: all of it, unless it is a ``DTensor``."""
    local: torch.Tensor = tensor.to_local() if is_dtensor(tensor) else tensor
    return local


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor; every process has to call it for a ``DTensor``."""
    whole: torch.Tensor = tensor.full_tensor() if is_dtensor(tensor) else tensor
    return whole


def distribute_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Place a tensor that every process has like another one: on its device, or sharded as it is.

    Args:
        whole: The same in every process.
        like: The other one. A tensor of another shape than it, unless it has no dimension, is
            replicated: a ``DTensor`` can be computed with other ones only.
    """
    if not is_dtensor(like) or is_dtensor(whole) or not whole.dim():
        return whole.to(like.device)
    package = sys.modules["torch.distributed.tensor"]
    placements = like.placements
    if whole.shape != like.shape:
        placements = [package.Replicate()] * len(placements)
    placed: torch.Tensor = package.distribute_tensor(
        whole.to(like.device), like.device_mesh, placements, src_data_rank=None
    )
    return placed


def empty_local_tensor(like: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor sharded as a ``DTensor``, on the CPU, whose values are still to be set."""
    made: torch.Tensor = sys.modules["torch.distributed.tensor"].DTensor.from_local(
        torch.empty(like.to_local().shape, dtype=dtype),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
    return made


def offsets_of(like: Any) -> tuple[int, ...]:
    """Return where the shard of this process begins in a ``DTensor``."""
    utils = sys.modules["torch.distributed.tensor"]._utils
    _, offsets = utils.compute_local_shape_and_global_offset(
        like.shape, like.device_mesh, like.placements
    )
    return tuple(offsets)


if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = moved_names(__name__)
