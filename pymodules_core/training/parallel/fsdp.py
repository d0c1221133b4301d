"""FSDP2: each process holds a shard of every parameter, and all of one block while it computes."""

from collections.abc import Iterable
from typing import cast

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from pymodules_core.errors import ProcessesError, closest_match, list_words
from pymodules_core.settings import ParallelSettings


def shard_module(
    module: nn.Module,
    *,
    name: str,
    settings: ParallelSettings,
    forward_methods: tuple[str, ...],
    mesh: DeviceMesh,
) -> FSDPModule:
    """Shard a module in place: its blocks first, then the rest of it as one.

    Its parameters are new objects afterwards, of type ``DTensor``; its class is a subclass of what
    it was.

    Args:
        module: The module.
        name: Its name, for messages.
        settings: Which parts are blocks.
        forward_methods: Methods besides ``forward`` that gather it.
        mesh: The processes.

    Raises:
        ProcessesError: torch refuses it, or no part is of a class that ``blocks`` names.
    """
    blocks = _blocks_of(module, name, settings)
    try:
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ProcessesError(
            f"module {name!r} cannot be sharded: {error}",
            key=f"modules.settings.{name}.parallel",
            found="fsdp",
            fix='"parallel": "ddp" keeps all of it in each process',
        ) from error
    for method in forward_methods:
        register_fsdp_forward_method(module, method)
    return cast("FSDPModule", module)  # its class has changed


def _blocks_of(module: nn.Module, name: str, settings: ParallelSettings) -> list[nn.Module]:
    """Return the submodules that are gathered one at a time, inner ones first."""
    submodules = [one for one in module.modules() if one is not module]
    _refuse_unknown_blocks(submodules, name, settings)
    blocks: list[nn.Module] = []
    counted: set[nn.Parameter] = set()
    for one in reversed(submodules):  # children before their parents
        own = set(one.parameters()) - counted
        if type(one).__name__ in settings.blocks or _is_large(one, own, settings):
            blocks.append(one)
            counted |= own
    return blocks


def _refuse_unknown_blocks(
    submodules: Iterable[nn.Module], name: str, settings: ParallelSettings
) -> None:
    kinds = {type(one).__name__ for one in submodules}
    if unknown := [kind for kind in settings.blocks if kind not in kinds]:
        raise ProcessesError(
            f"modules.settings.{name}.parallel.blocks: module {name!r} has no part of class "
            f"{unknown[0]!r}; it has: {list_words(sorted(kinds))}",
            key=f"modules.settings.{name}.parallel.blocks",
            found=unknown[0],
            closest=closest_match(unknown[0], kinds),
            fix="name the class of its blocks",
        )


def _is_large(module: nn.Module, own: Iterable[nn.Parameter], settings: ParallelSettings) -> bool:
    least = settings.min_block_parameters
    if least is None or isinstance(module, nn.ModuleList | nn.ModuleDict):
        return False  # torch refuses what has no ``forward`` that could gather it
    return sum(one.numel() for one in own) >= least
