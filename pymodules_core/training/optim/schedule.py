"""``Schedule``: the scheduler of an optimizer, stepped after its updates or after epochs."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pymodules_core.errors import TaskError


class Schedule:
    """Steps the scheduler of one optimizer.

    Args:
        name: Of the optimizer.
        optimizer: The optimizer, with the groups that the scheduler was made for.
        scheduler: One of torch's; None where there is none.
        follows: ``step`` or ``epoch``.
    """

    def __init__(self, name: str, optimizer: Optimizer, scheduler: Any, *, follows: str) -> None:
        self._name = name
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._follows = follows if scheduler is not None else None
        self._groups = len(optimizer.param_groups)

    def end_update(self) -> None:
        """Step a scheduler that follows updates.

        Raises:
            TaskError: It does not know groups that the task added.
        """
        if self._follows == "step":
            self._step()

    def end_epoch(self, monitored: float | None, *, has_updated: bool) -> None:
        """Step a scheduler that follows epochs.

        Args:
            monitored: What ``ReduceLROnPlateau`` gets; where it is None such a one is not stepped.
            has_updated: Whether the optimizer did, in this process or before a resume.

        Raises:
            TaskError: It does not know groups that the task added.
        """
        if self._follows != "epoch":
            return
        if isinstance(self._scheduler, ReduceLROnPlateau):
            if monitored is not None:
                self._step(monitored)
            return
        if has_updated:
            # torch would warn of the wrong order in a process that resumes after the last step.
            self._optimizer._opt_called = True  # type: ignore[attr-defined]  # torch's own
        self._step()

    def _step(self, *metrics: float) -> None:
        try:
            self._scheduler.step(*metrics)
        except Exception as error:
            groups = len(self._optimizer.param_groups)
            if groups == self._groups:
                raise
            raise TaskError(
                f"{type(self._scheduler).__name__} of optimizer {self._name!r} was made for "
                f"{self._groups} of its {groups} parameter groups: {type(error).__name__}: {error}",
                key=self._name,
                found=groups,
                fix="return all groups from optimizers(), and turn requires_grad on when one is to "
                "learn; or take a scheduler that follows each group, such as StepLR",
            ) from error
