"""FSDP2: each process holds a part of every parameter, and all of one block while it computes."""

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
        sharded = fully_shard(module, mesh=mesh)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ProcessesError(
            f"module {name!r} cannot be sharded: {error}",
            key=f"modules.settings.{name}.parallel",
            found="fsdp",
            fix='"parallel": "ddp" keeps all of it in each process',
        ) from error
    for method in forward_methods:
        register_fsdp_forward_method(module, method)
    if not isinstance(sharded, FSDPModule):  # for the type checker: it changes the class
        raise TypeError(type(sharded))
    return sharded


def _blocks_of(module: nn.Module, name: str, settings: ParallelSettings) -> list[nn.Module]:
    """Give the parts that are gathered one at a time, inner ones first."""
    parts = [part for part in module.modules() if part is not module]
    kinds = {type(part).__name__ for part in parts}
    if unknown := [kind for kind in settings.blocks if kind not in kinds]:
        raise ProcessesError(
            f"modules.settings.{name}.parallel.blocks: module {name!r} has no part of class "
            f"{unknown[0]!r}; it has: {list_words(sorted(kinds))}",
            key=f"modules.settings.{name}.parallel.blocks",
            found=unknown[0],
            closest=closest_match(unknown[0], kinds),
            fix="name the class of its blocks",
        )
    named = {id(part) for part in parts if type(part).__name__ in settings.blocks}
    least = settings.min_block_parameters
    blocks: list[nn.Module] = []
    counted: set[int] = set()
    for part in reversed(parts):  # children before their parents
        own = [one for one in part.parameters() if id(one) not in counted]
        size = sum(one.numel() for one in own)
        is_large = least is not None and size >= least and not _is_container(part)
        if id(part) in named or is_large:
            blocks.append(part)
            counted.update(map(id, own))
    return blocks


def _is_container(part: nn.Module) -> bool:
    """Tell whether torch refuses it: it has no ``forward`` that could gather it."""
    return isinstance(part, nn.ModuleList | nn.ModuleDict)
