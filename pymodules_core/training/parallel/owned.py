"""``OwnedModules``: what one optimizer has to do with modules that processes share."""

from typing import TYPE_CHECKING

from torch.nn import Parameter

from pymodules_core.training.parallel.ddp import DataParallel
from pymodules_core.training.parallel.gradients import average_gradients

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


class OwnedModules:
    """The wrapped modules whose parameters one optimizer owns.

    Args:
        replicas: Behind DDP.
        shards: Sharded by FSDP2, and of no other optimizer.
        has_parts: Some of its parameters are in parts.
        plain: Parameters of modules without a wrapper.
        size: How many processes there are.
    """

    def __init__(
        self,
        *,
        replicas: list[DataParallel],
        shards: "list[FSDPModule]",
        has_parts: bool,
        plain: list[Parameter],
        size: int,
    ) -> None:
        self.has_parts = has_parts
        self.replicas = replicas
        self.shards = shards
        self.plain = plain
        self.size = size

    def start_step(self, *, is_synced: bool) -> None:
        """Say whether the backward of this step averages gradients.

        A module of two optimizers may hear it twice, and too often is as right as once a window.
        """
        for group in self.replicas:
            group.start_step(is_synced=is_synced)
        for module in self.shards:
            module.set_requires_gradient_sync(is_synced)

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

    def average_plain(self) -> None:
        """Average the gradients of modules without a wrapper."""
        if self.plain:
            average_gradients(self.plain, self.size)
