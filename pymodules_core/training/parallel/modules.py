"""``SharedModules``: how the processes of a run share the modules of a pool."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import Parameter
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from pymodules_core.errors import ProcessesError, TaskError, list_words
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.dtensor import unsharded_leaves
from pymodules_core.processes.group import Processes
from pymodules_core.training.parallel.batch_norm import synchronise_batch_norm
from pymodules_core.training.parallel.ddp import InPlaceDDP
from pymodules_core.training.parallel.optimizer_modules import OptimizerModules
from pymodules_core.training.parallel.planning import (
    check_forward_methods,
    group_modules,
    settings_of,
)

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import FSDPModule

logger = logging.getLogger("pymodules_core")


class SharedModules:
    """Every module that trains, wrapped on its own, in place; frozen ones as they are.

    Modules that share parameters are one group. In one process nothing is wrapped.

    Args:
        pool: The modules, on their device, with their weights.
        processes: Who shares them.
        mesh: From ``make_mesh``.

    Raises:
        SettingsError: ``forward_methods`` names no method, or settings of a group contradict.
        ProcessesError: A module cannot be wrapped as its settings say.
    """

    def __init__(
        self, pool: ModulePool, processes: Processes, *, mesh: "DeviceMesh | None" = None
    ) -> None:
        self._pool = pool
        self._processes = processes
        for name in pool:
            check_forward_methods(pool, name)
        self._replicas: list[InPlaceDDP] = []
        self._shards: dict[str, FSDPModule] = {}
        self._optimizers: Mapping[str, Optimizer] = {}
        self._owned: dict[str, OptimizerModules] = {}
        self._found: dict[str, set[Parameter]] = {}
        if not processes.is_alone:
            for names in group_modules(pool):
                self._wrap(names, mesh)
        self._moving = list(_moving_buffers(self._trained()))

    @property
    def has_shards(self) -> bool:
        """Whether calls of a module talk to the other processes, in evaluation too."""
        return bool(self._shards)

    def assign(self, optimizers: Mapping[str, Optimizer]) -> dict[str, OptimizerModules]:
        """Return what each optimizer has to do with the modules, now and in later steps.

        Args:
            optimizers: By name; their groups may change between steps.
        """
        self._optimizers = optimizers
        # Looked up while none of them is gathered: its parameters are others then.
        shards = [(one, {*self._pool[name].parameters()}) for name, one in self._shards.items()]
        leaf_of: dict[Parameter, Parameter] = {}
        if len(optimizers) > 1:
            for name in self._shards:
                leaf_of |= unsharded_leaves(self._pool[name])
        self._owned = {
            name: OptimizerModules(shards=shards, leaf_of=leaf_of, size=self._processes.size)
            for name in optimizers
        }
        self._find_owners()
        return self._owned

    def _find_owners(self) -> None:
        """Find which optimizer owns which module, where groups changed since the last time.

        Modules whose parameters several optimizers own leave DDP: the backward of one of them
        gives the others' parameters no gradient, and DDP would wait for it forever.
        """
        owned = {
            name: {parameter for group in one.param_groups for parameter in group["params"]}
            for name, one in self._optimizers.items()
        }
        if owned == self._found:
            return
        self._found = owned

        def is_of_several(parameters: Iterable[Parameter]) -> bool:
            own = set(parameters)
            return sum(bool(own & one) for one in owned.values()) > 1

        for group in [one for one in self._replicas if is_of_several(one.parameters)]:
            logger.info(
                "several optimizers train %s: its gradients are averaged when they step",
                list_words(group.names),
            )
            self._replicas.remove(group)
        for name, own in owned.items():
            self._owned[name].replicas = [one for one in self._replicas if own & {*one.parameters}]

    def call_bounds(self) -> list[float]:
        """Return the counts whose maximum over all processes ``check_calls`` compares."""
        counts = [float(group.shared_steps) for group in self._replicas]
        return [*counts, *(-count for count in counts)]

    def check_calls(self, largest: Sequence[float] | None = None) -> None:
        """Compare in how many steps each process called each module under DDP.

        What one process averages alone meets what the others average next, in silence where the
        sizes fit. Every process has to call it, after the same step.

        Args:
            largest: The largest ``call_bounds`` of all processes, where they are known.

        Raises:
            TaskError: They differ.
        """
        if largest is None:
            largest = self._processes.all_reduce_max(self.call_bounds())
        half = len(largest) // 2
        for group, most, least in zip(self._replicas, largest[:half], largest[half:], strict=True):
            if most == -least:
                continue
            counts = self._processes.gather(group.shared_steps)
            shown = ", ".join(f"{count} by process {rank}" for rank, count in enumerate(counts))
            raise TaskError(
                f"module {list_words(map(repr, group.names))} was not called in the same steps by "
                f"all processes: in {shown}",
                key=group.names[0],
                found=counts,
                fix="let each process call it where the others do, or set "
                f'"parallel": "off" for {group.names[0]!r}; what was averaged since then is wrong',
            )

    def release(self) -> None:
        """Reshard what FSDP2 keeps gathered until a backward, of which there may be none."""
        for module in self._shards.values():
            module.reshard()

    def start_step(self) -> None:
        """Begin a train step: buffers outside of batch norms are those of the first process."""
        self._find_owners()
        if self._moving:
            self._processes.broadcast(self._moving)

    def copy_buffers(self) -> None:
        """Copy the buffers of trained modules, such as running means, from the first process."""
        self._processes.broadcast(
            buffer for module in self._trained() for buffer in module.buffers()
        )

    def _trained(self) -> list[nn.Module]:
        if self._processes.is_alone:
            return []
        return [module for name, module in self._pool.items() if not self._pool.is_frozen(name)]

    def _wrap(self, names: list[str], mesh: "DeviceMesh | None") -> None:
        """Wrap modules that share parameters as one, a module that shares none alone."""
        settings = settings_of(self._pool, names)
        members = {name: self._pool[name] for name in names}
        if settings.sync_batch_norm:
            for name, module in members.items():
                if not self._pool.is_frozen(name):
                    _synchronise(name, module)
        if settings.kind == "fsdp" and mesh is not None:
            # Imported here: it takes half a second, and most runs shard nothing.
            from pymodules_core.training.parallel.fsdp import shard_module  # noqa: PLC0415

            (name,) = names
            self._shards[name] = shard_module(
                self._pool[name],
                name=name,
                settings=settings,
                forward_methods=self._pool.settings[name].forward_methods,
                mesh=mesh,
            )
        elif settings.kind == "ddp" and any(
            p.requires_grad for one in members.values() for p in one.parameters()
        ):
            self._replicas.append(
                InPlaceDDP(
                    members,
                    forward_methods={n: self._pool.settings[n].forward_methods for n in names},
                    find_unused_parameters=settings.find_unused_parameters,
                )
            )


def make_mesh(pool: ModulePool, processes: Processes, device: torch.device) -> "DeviceMesh | None":
    """Return what FSDP2 shards over; None where no module is to be sharded.

    Every process has to call it: they make a group.
    """
    is_wanted = any(one.sharing.kind == "fsdp" for one in pool.settings.values())
    if processes.is_alone or not is_wanted:
        return None
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415  half a second

    return init_device_mesh(device.type, (processes.size,))


def _synchronise(name: str, module: nn.Module) -> None:
    if synchronise_batch_norm(module) is not module:
        raise ProcessesError(
            f"module {name!r} is a batch norm itself, which cannot be synchronised in its place",
            key=f"modules.settings.{name}.parallel.sync_batch_norm",
            found=type(module).__name__,
            fix="put it into a module that holds it",
        )


def _moving_buffers(modules: Iterable[nn.Module]) -> Iterable[torch.Tensor]:
    """Return buffers that may change and that training may read.

    What batch norms keep is read in evaluation only; masks and indices do not change.
    """
    return {
        id(buffer): buffer
        for module in modules
        for part in module.modules()
        if not isinstance(part, _BatchNorm)
        for buffer in part.buffers(recurse=False)
        if buffer.is_floating_point()
    }.values()
