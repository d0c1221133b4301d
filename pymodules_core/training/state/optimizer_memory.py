"""One optimizer and its scheduler as a training state holds them, and as they go on from it."""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.nn import Parameter
from torch.optim import Optimizer

from pymodules_core.errors import PymodulesError, TaskError, list_words
from pymodules_core.training.state.encoding import decode, encode
from pymodules_core.training.state.merging import is_same, merge_changes
from pymodules_core.training.state.optimizer_state import (
    load_optimizer_state,
    optimizer_state,
    options_of,
)

logger = logging.getLogger("pymodules_core")


class OptimizerMemory:
    """What an optimizer and its scheduler began as, and what they are.

    Args:
        name: The optimizer's name.
        optimizer: As the task made it.
        scheduler: As the task made it, or None.

    Raises:
        TaskError: They keep what a checkpoint cannot hold.
    """

    def __init__(self, name: str, optimizer: Optimizer, scheduler: Any) -> None:
        self._name = name
        self._where = f"optimizer {name!r}"
        self._optimizer = optimizer
        self._scheduler = scheduler
        # As the task made them: where a run goes on with others, the task was changed.
        self._options = options_of(optimizer, name=self._where)
        self._schedule_at_start = copy.deepcopy(self._schedule())

    def state_dict(self, names: Mapping[Parameter, str]) -> dict[str, Any]:
        """Give the state, the optimizer's by the names of its parameters.

        Raises:
            TaskError: They keep what a checkpoint cannot hold.
        """
        return {
            "kinds": self._kinds,
            "options": self._options,
            "optimizer": optimizer_state(self._optimizer, names, name=self._where),
            "schedule_at_start": self._schedule_at_start,
            "scheduler": self._schedule(),
        }

    def load_state_dict(self, state: Mapping[str, Any], names: Mapping[Parameter, str]) -> None:
        """Take back what ``state_dict`` gave.

        An optimizer or scheduler of another class begins anew. Options that the task sets otherwise
        than when the run began are today's. All of it is told.

        Raises:
            TaskError: The optimizer or scheduler does not take it.
        """
        kinds, today = state["kinds"], self._kinds
        if kinds[0] == today[0]:
            with self._refusals("optimizer"):
                load_optimizer_state(self._optimizer, state["optimizer"], names, name=self._name)
                self._take_changed_options(state["options"])
        else:
            self._tell_anew("it", kinds[0], today[0])
        if kinds[1] == today[1]:
            if self._scheduler is not None:
                with self._refusals("scheduler"):
                    self._load_schedule(state)
        else:
            self._tell_anew("its scheduler", kinds[1], today[1])

    def _schedule(self) -> Any:
        if self._scheduler is None:
            return None
        return encode(self._scheduler.state_dict(), name=f"the scheduler of {self._where}")

    @property
    def _kinds(self) -> list[str | None]:
        """The classes of optimizer and scheduler: the state of one means nothing to another."""
        return [
            None if one is None else f"{type(one).__module__}.{type(one).__qualname__}"
            for one in (self._optimizer, self._scheduler)
        ]

    def _tell_anew(self, what: str, before: str | None, today: str | None) -> None:
        logger.warning(
            "optimizer %r: %s was %s and is %s: it begins anew", self._name, what, before, today
        )

    def _take_changed_options(self, before: list[Any]) -> None:
        if len(before) != len(self._options):
            return  # told already
        for group, old, new in zip(
            self._optimizer.param_groups, before, self._options, strict=True
        ):
            for key in new:
                if key in old and not is_same(old[key], new[key]):
                    scale = _rate_change(key, old[key], new[key])
                    group[key] = decode(new[key]) if scale is None else group[key] * scale
                    logger.warning(
                        "optimizer %r: %s was %s when the run began, and %s goes on",
                        self._name,
                        key,
                        old[key],
                        group[key],
                    )

    def _load_schedule(self, state: Mapping[str, Any]) -> None:
        changed: list[str] = []
        merged = merge_changes(
            state["scheduler"], state["schedule_at_start"], self._schedule_at_start, changed
        )
        self._scheduler.load_state_dict(decode(merged))
        if changed:
            logger.warning(
                "optimizer %r: its scheduler has another %s than when the run began, and goes on "
                "with it",
                self._name,
                list_words(sorted(set(changed))),
            )

    @contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        try:
            yield
        except PymodulesError:
            raise
        except Exception as error:
            raise TaskError(
                f"the {what} of optimizer {self._name!r} does not take back what was saved: "
                f"{type(error).__name__}: {error}",
                key=self._name,
                fix="make it as it was when the run began, or give the optimizer another name: it "
                "then begins anew",
            ) from error


def _rate_change(key: str, before: Any, today: Any) -> float | None:
    """Give the factor of a changed learning rate, which a schedule may have moved meanwhile."""
    if key not in {"lr", "initial_lr"} or not float(before):
        return None
    return float(today) / float(before)
