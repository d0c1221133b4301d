"""``OwnedModules``: what one optimizer has to do with modules that processes share."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch.nn import Parameter

from pymodules_core.processes.sharding import is_in_parts
from pymodules_core.training.parallel.ddp import DataParallel
from pymodules_core.training.parallel.gradients import average_gradients

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


class OwnedModules:
    """The wrapped modules whose parameters one optimizer owns.

    Args:
        replicas: Behind DDP.
        shards: Behind FSDP2.
        leaf_of: Of parameters of ``shards``, what a forward computes with.
        plain: Parameters of modules without a wrapper.
        size: How many processes there are.
    """

    def __init__(
        self,
        *,
        replicas: list[DataParallel],
        shards: "list[FSDPModule]",
        leaf_of: Mapping[Parameter, Parameter],
        plain: list[Parameter],
        size: int,
    ) -> None:
        self._shards = shards
        self._leaf_of = leaf_of
        self.replicas = replicas
        self.plain = plain
        self.size = size

    @property
    def has_parts(self) -> bool:
        """Whether some of its parameters are in parts."""
        return bool(self._shards)

    def leaves(self, parameters: Iterable[Parameter]) -> list[Parameter]:
        """Return where the graphs of losses end for parameters.

        Under FSDP2 these are other tensors: asked for gradients of a parameter in parts, a backward
        computes none, in silence.
        """
        return [self._leaf_of.get(one, one) for one in parameters]

    def release(self) -> None:
        """Let go of what FSDP2 holds gathered, which an update has made old."""
        for module in self._shards:
            module.reshard()

    def start_step(self, *, is_synced: bool) -> None:
        """Say whether the backward of this step averages gradients.

        A module of two optimizers may hear it twice, and too often is as right as once a window.
        """
        for group in self.replicas:
            group.start_step(is_synced=is_synced)

    def end_step(self) -> None:
        """End it."""
        for group in self.replicas:
            group.end_step()

    def check_backward(self) -> None:
        """Tell where a backward left gradients that were not averaged.

        Raises:
            TaskError: It did.
        """
        for group in self.replicas:
            group.check_backward()

    def average(self, parameters: Iterable[Parameter]) -> None:
        """Average gradients of parameters that its modules have, whether a backward did or not.

        Of those in parts it did: FSDP2 averages in each.
        """
        if self.size > 1:
            average_gradients([one for one in parameters if not is_in_parts(one)], self.size)

    def average_plain(self) -> None:
        """Average the gradients of modules without a wrapper."""
        if self.plain:
            average_gradients(self.plain, self.size)
