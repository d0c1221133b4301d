"""``OwnedModules``: what one optimizer has to do with modules that processes share."""

from collections.abc import Iterable

from torch.nn import Parameter

from pymodules_core.processes.sharding import is_in_parts
from pymodules_core.training.parallel.ddp import DataParallel
from pymodules_core.training.parallel.gradients import average_gradients


class OwnedModules:
    """The wrapped modules whose parameters one optimizer owns.

    Args:
        replicas: Behind DDP.
        has_parts: Some of its parameters are in parts.
        plain: Parameters of modules without a wrapper.
        size: How many processes there are.
    """

    def __init__(
        self,
        *,
        replicas: list[DataParallel],
        has_parts: bool,
        plain: list[Parameter],
        size: int,
    ) -> None:
        self.has_parts = has_parts
        self.replicas = replicas
        self.plain = plain
        self.size = size

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
