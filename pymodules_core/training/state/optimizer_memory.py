"""One optimizer and its scheduler as a training state holds them, and as they go on from it."""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pymodules_core.errors import PymodulesError, TaskError
from pymodules_core.training.state.encoding import decode, encode
from pymodules_core.training.state.optimizer_state import (
    load_optimizer_state,
    optimizer_state,
    options_of,
)

logger = logging.getLogger("pymodules_core")

# What a plateau scheduler has seen; the rest of its state are its options.
_SEEN_BY_PLATEAU = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


class OptimizerMemory:
    """What an optimizer and its scheduler began as, and what they are.

    Args:
        name: The optimizer's name.
        optimizer: As the task made it.
        scheduler: As the task made it, or None.
        schedule: Whether the scheduler follows epochs or updates.

    Attributes:
        updates: How often the optimizer updated.
        epochs: Epochs that ended.

    Raises:
        TaskError: They keep what a checkpoint cannot hold.
    """

    def __init__(
        self,
        name: str,
        optimizer: Optimizer,
        scheduler: Any,
        *,
        schedule: Literal["epoch", "step"],
    ) -> None:
        self.updates = 0
        self.epochs = 0
        self._name = name
        self._where = f"optimizer {name!r}"
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._schedule = schedule
        # As the task made them: where a run goes on with others, the task was changed.
        self._start = {
            "kinds": [_kind_of(optimizer), _kind_of(scheduler)],
            "schedule": schedule,
            "options": options_of(optimizer, name=self._where),
            "scheduler": copy.deepcopy(self._scheduler_state()),
        }

    def state_dict(self, names: Mapping[Parameter, str]) -> dict[str, Any]:
        """Give the state, the optimizer's by the names of its parameters.

        Raises:
            TaskError: They keep what a checkpoint cannot hold.
        """
        return {
            "start": self._start,
            "updates": self.updates,
            "epochs": self.epochs,
            "optimizer": optimizer_state(self._optimizer, names, name=self._where),
            "scheduler": self._scheduler_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], names: Mapping[Parameter, str]) -> None:
        """Take back what ``state_dict`` gave.

        Where the task makes optimizer and scheduler as it did, that is all. An optimizer of another
        class begins anew; options that are others today are today's; and so is a schedule that is
        another, at the place where the run is. All of it is told.

        Raises:
            TaskError: The optimizer or scheduler does not take it.
        """
        self.updates, self.epochs = state["updates"], state["epochs"]
        before = state["start"]
        with self._refusals():
            if is_same(before, self._start):
                self._load_optimizer(state, names)
                if self._scheduler is not None:
                    self._scheduler.load_state_dict(decode(state["scheduler"]))
                return
            old, new = before["kinds"], self._start["kinds"]
            if old[0] != new[0]:
                self._tell("it was %s and is %s: it begins anew", old[0], new[0])
                if self._scheduler is not None:
                    self._take_place_in_schedule(state)
            elif old[1] is None and new[1] is None:
                self._load_optimizer(state, names)
                self._take_changed_options(before["options"])
            else:
                self._take_place_in_schedule(state)
                self._load_optimizer(state, names, keeps_options=True)

    def _load_optimizer(
        self,
        state: Mapping[str, Any],
        names: Mapping[Parameter, str],
        *,
        keeps_options: bool = False,
    ) -> None:
        load_optimizer_state(
            self._optimizer,
            state["optimizer"],
            names,
            name=self._name,
            keeps_options=keeps_options,
        )

    def _take_changed_options(self, before: list[Any]) -> None:
        """Of options that nothing schedules, take those that the task sets otherwise today."""
        groups, today = self._optimizer.param_groups, self._start["options"]
        if len(before) != len(today):
            return  # told already, and they are today's
        for group, old, new in zip(groups, before, today, strict=True):
            for key, value in new.items():
                if key in old and is_same(old[key], value):
                    continue
                group[key] = decode(value)
                self._tell(
                    "%s was %s when the run began, and %s goes on",
                    key,
                    decode(old.get(key)),
                    group[key],
                )

    def _take_place_in_schedule(self, state: Mapping[str, Any]) -> None:
        """Bring today's schedule to where it would be had the run begun with it."""
        scheduler, start = self._scheduler, self._start["scheduler"]
        if scheduler is None:
            self._tell("it has no schedule any more, and goes on as the task makes it")
            return
        if isinstance(scheduler, ReduceLROnPlateau):
            # It follows metrics, which are not kept: what it has seen, but not what it made of it.
            if state["start"]["kinds"][1] == self._start["kinds"][1]:
                seen = {key: state["scheduler"][key] for key in _SEEN_BY_PLATEAU}
                scheduler.load_state_dict(decode({**start, **seen}))
        else:
            with warnings.catch_warnings():
                # torch expects an optimizer's step before each, and there were.
                warnings.simplefilter("ignore")
                for _ in range(self.updates if self._schedule == "step" else self.epochs):
                    scheduler.step()
        self._tell(
            "its options or its schedule are others than when the run began: it goes on with "
            "today's, after %d updates and %d epochs, at the learning rate %g",
            self.updates,
            self.epochs,
            float(self._optimizer.param_groups[0]["lr"]),
        )

    def _scheduler_state(self) -> Any:
        if self._scheduler is None:
            return None
        return encode(self._scheduler.state_dict(), name=f"the scheduler of {self._where}")

    def _tell(self, text: str, *facts: object) -> None:
        logger.warning("%s: %s", self._where, text % facts)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except PymodulesError:
            raise
        except Exception as error:
            raise TaskError(
                f"{self._where} or its scheduler does not go on from what was saved: "
                f"{type(error).__name__}: {error}",
                key=self._name,
                fix="make both as they were when the run began, or give the optimizer another "
                "name: it then begins anew",
            ) from error


def is_same(first: Any, second: Any) -> bool:
    """Compare encoded values; NaN equals NaN, tensors are compared by value."""
    if isinstance(first, torch.Tensor) or isinstance(second, torch.Tensor):
        return (
            isinstance(first, torch.Tensor)
            and isinstance(second, torch.Tensor)
            and first.shape == second.shape
            and torch.equal(first.cpu(), second.cpu())
        )
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(is_same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(is_same, first, second))
    return bool(first == second or (first != first and second != second))  # noqa: PLR0124  NaN


def _kind_of(value: object) -> str | None:
    return None if value is None else f"{type(value).__module__}.{type(value).__qualname__}"
