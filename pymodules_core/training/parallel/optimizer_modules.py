"""``OptimizerModules``: what one optimizer has to do with modules that processes share."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs
from torch.nn import Parameter

from pymodules_core.processes.dtensor import is_dtensor
from pymodules_core.training.parallel.gradients import average_gradients

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

    from pymodules_core.training.parallel.ddp import InPlaceDDP


@attrs.define(kw_only=True, eq=False)
class OptimizerModules:
    """The wrapped modules whose parameters one optimizer owns.

    Args:
        shards: All modules of the pool that are behind FSDP2, with their parameters, any of
            which may come to the optimizer later.
        leaf_of: Of those parameters what a forward computes with.
        size: How many processes there are.

    Attributes:
        replicas: Behind DDP, as long as the optimizer has a parameter of them.
    """

    _shards: "list[tuple[FSDPModule, set[Parameter]]]"
    _leaf_of: Mapping[Parameter, Parameter]
    size: int
    replicas: "list[InPlaceDDP]" = attrs.field(factory=list, init=False)

    @property
    def has_shards(self) -> bool:
        """Whether parameters may be sharded."""
        return bool(self._shards)

    def leaves(self, parameters: Iterable[Parameter]) -> list[Parameter]:
        """Return where the graphs of losses end for parameters.

        Under FSDP2 these are other tensors: asked for gradients of a sharded parameter, a backward
        computes none, without an error.
        """
        if not self._leaf_of:  # hashing a tensor takes as long as a small kernel
            return list(parameters)
        return [self._leaf_of.get(one, one) for one in parameters]

    def release(self, parameters: Iterable[Parameter]) -> None:
        """Reshard what FSDP2 keeps gathered of parameters, which an update has made stale."""
        for module, own in self._shards:
            if not own.isdisjoint(parameters):
                module.reshard()

    def start_step(self, *, is_synced: bool) -> None:
        """Set whether the backward of this step averages gradients.

        A module of two optimizers may get it twice: averaging more often than once a window is
        right, too.
        """
        for group in self.replicas:
            group.start_step(is_synced=is_synced)

    def end_step(self) -> None:
        """End it."""
        for group in self.replicas:
            group.end_step()

    def check_backward(self) -> None:
        """Refuse gradients that a backward left without averaging them.

        Raises:
            TaskError: It did.
        """
        for group in self.replicas:
            group.check_backward()

    def average(self, parameters: Iterable[Parameter]) -> None:
        """Average gradients of parameters that its modules have, whether a backward did or not.

        Of sharded ones it did: FSDP2 averages in each.
        """
        if self.size > 1:
            average_gradients([one for one in parameters if not is_dtensor(one)], self.size)

    def average_unaveraged(self, parameters: Iterable[Parameter]) -> None:
        """Average gradients that no backward of the step at hand averaged.

        They are those of modules without a wrapper, and of parameters that began to learn after DDP
        looked at its module.
        """
        if self.size == 1:
            return
        averaged = [group.averaged for group in self.replicas]
        self.average(p for p in parameters if not any(p in one for one in averaged))
