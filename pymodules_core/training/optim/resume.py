"""``OptimizerResume``: an optimizer and its scheduler, saved and resumed."""

import copy
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import attrs
import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pymodules_core.errors import PymodulesError, TaskError
from pymodules_core.training.optim.named_state import (
    load_optimizer_state,
    optimizer_state,
    options_of,
    untrained_line,
)
from pymodules_core.training.optim.parameter_groups import PARAMETERS
from pymodules_core.training.state.encoding import decode_state, encode_state

logger = logging.getLogger("pymodules_core")

# Of the files of an experiment: it holds the folder's path, and a number that counts the runs of a
# process.
_PRIVATE_PACKAGE = re.compile(
    r"^pymodules_core\.discovery\.(?:module_files|scan)\.x[a-z2-7]*_\d+\."
)
# What a plateau scheduler has seen; the rest of its state are its options.
_SEEN_BY_PLATEAU = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


@attrs.define(eq=False, repr=False, slots=False)
class OptimizerResume:
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

    _name: str
    _optimizer: Optimizer
    _scheduler: Any
    _schedule: Literal["epoch", "step"]
    updates: int = attrs.field(default=0, init=False)
    epochs: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._where = f"optimizer {self._name!r}"
        # As the task made them: where a run resumes with others, the task was changed.
        self._start = {
            "kinds": [_kind_of(self._optimizer), _kind_of(self._scheduler)],
            "schedule": self._schedule,
            "options": options_of(self._optimizer, name=self._where),
            "scheduler": copy.deepcopy(self._scheduler_state()),
        }
        self._start_groups = [list(group[PARAMETERS]) for group in self._optimizer.param_groups]

    def state_dict(self, names: Mapping[Parameter, str]) -> dict[str, Any]:
        """Return the state, the optimizer's by the names of its parameters.

        Raises:
            TaskError: They keep what a checkpoint cannot hold.
        """
        return {
            "start": self._start,
            # Beside the groups as they are now: a task may change them during the run.
            "start_groups": [
                {PARAMETERS: [names[one] for one in group]} for group in self._start_groups
            ],
            "updates": self.updates,
            "epochs": self.epochs,
            "optimizer": optimizer_state(self._optimizer, names, name=self._where),
            "scheduler": self._scheduler_state(),
        }

    def load_state_dict(
        self, state: Mapping[str, Any], names: Mapping[Parameter, str]
    ) -> list[str]:
        """Load what ``state_dict`` returned.

        Where the task makes optimizer and scheduler as it did, that is all, parameter groups that
        it added during the run included. An optimizer of another class starts without state.
        Options that were changed are those of today; a schedule that was changed is used at the
        current step. All of it is reported.

        Returns:
            What could not be restored, a line each.

        Raises:
            TaskError: The optimizer or scheduler does not take it.
        """
        self.updates, self.epochs = state["updates"], state["epochs"]
        # Older versions wrote the private names of a task's own classes.
        before = {**state["start"], "kinds": [*map(_public_name, state["start"]["kinds"])]}
        state = {**state, "start": before}
        load_optimizer = partial(
            load_optimizer_state,
            self._optimizer,
            state["optimizer"],
            names,
            name=self._name,
            start_groups=_groups_at_start(state),
        )
        with self._refusals():
            if is_same(before, self._start):
                loaded = load_optimizer()
                if self._scheduler is not None:
                    self._scheduler.load_state_dict(decode_state(state["scheduler"]))
                    # It has what it keeps of each group where the task put it, a function for one.
                    if None in loaded.starts and not is_same(
                        self._scheduler_state(), state["scheduler"]
                    ):
                        loaded.lost.append(
                            f"{self._where}: its scheduler does not take back what it had of the "
                            "parameter groups that the run added"
                        )
                return loaded.lost
            old, new = before["kinds"], self._start["kinds"]
            if old[0] != new[0]:
                if self._scheduler is not None:
                    self._advance_schedule(state)
                return list(self._losses_of_another_class(state, names))
            if old[1] is None and new[1] is None:
                loaded = load_optimizer()
                self._take_changed_options(before["options"], loaded.starts)
            else:
                self._advance_schedule(state)
                loaded = load_optimizer(keeps_options=True)
            return loaded.lost

    def _losses_of_another_class(
        self, state: Mapping[str, Any], names: Mapping[Parameter, str]
    ) -> Iterator[str]:
        old, new = state["start"]["kinds"][0], self._start["kinds"][0]
        yield f"{self._where}: it was {old} and is {new}: it starts without state"
        there = {names[one] for group in self._start_groups for one in group}
        there |= {name for group in _groups_at_start(state) for name in group}
        saved = (name for group in state["optimizer"]["param_groups"] for name in group[PARAMETERS])
        if added := [name for name in saved if name not in there]:
            yield untrained_line(self._name, added)

    def _take_changed_options(self, before: list[Any], starts: list[int | None]) -> None:
        """Set the options that the task sets otherwise today, where nothing schedules them.

        Args:
            before: The options when the run began.
            starts: For each group which of the task's own it is.
        """
        today = self._start["options"]
        if len(before) != len(today):
            return  # reported already, and they are today's
        for group, start in zip(self._optimizer.param_groups, starts, strict=True):
            if start is None:
                continue
            old = before[start]
            for key, value in today[start].items():
                if key in old and is_same(old[key], value):
                    continue
                group[key] = decode_state(value)
                self._warn(
                    "%s was %s when the run began, and is now %s",
                    key,
                    decode_state(old.get(key)),
                    group[key],
                )

    def _advance_schedule(self, state: Mapping[str, Any]) -> None:
        """Step today's schedule to where it would be had the run begun with it."""
        scheduler, start = self._scheduler, self._start["scheduler"]
        if scheduler is None:
            self._warn("it has no schedule any more, and keeps the options that the task sets")
            return
        if isinstance(scheduler, ReduceLROnPlateau):
            # It follows metrics, which are not kept: what it has seen, but not what it made of it.
            if state["start"]["kinds"][1] == self._start["kinds"][1]:
                seen = {key: state["scheduler"][key] for key in _SEEN_BY_PLATEAU}
                scheduler.load_state_dict(decode_state({**start, **seen}))
        else:
            with warnings.catch_warnings():
                # torch expects an optimizer's step before each, and there were.
                warnings.simplefilter("ignore")
                for _ in range(self.updates if self._schedule == "step" else self.epochs):
                    scheduler.step()
        self._warn(
            "its options or its schedule changed since the run began: it uses those of today, "
            "after %d updates and %d epochs, at the learning rate %g",
            self.updates,
            self.epochs,
            float(self._optimizer.param_groups[0]["lr"]),
        )

    def _scheduler_state(self) -> Any:
        if self._scheduler is None:
            return None
        return encode_state(self._scheduler.state_dict(), name=f"the scheduler of {self._where}")

    def _warn(self, text: str, *facts: object) -> None:
        logger.warning("%s: %s", self._where, text % facts)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except PymodulesError:
            raise
        except Exception as error:
            raise TaskError(
                f"{self._where} or its scheduler cannot load what was saved: "
                f"{type(error).__name__}: {error}",
                key=self._name,
                fix="make both as they were when the run began, or give the optimizer another "
                "name: it then starts without state",
            ) from error


def is_same(first: Any, second: Any) -> bool:
    """Compare encoded values; NaN equals NaN, tensors are compared by value."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and torch.equal(first.cpu(), second.cpu())
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(is_same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(is_same, first, second))
    return _is_same_leaf(first, second)


def _is_same_leaf(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) or isinstance(second, torch.Tensor):
        return False
    return bool(first == second or (first != first and second != second))  # noqa: PLR0124  NaN


def _groups_at_start(state: Mapping[str, Any]) -> list[list[str]]:
    """Return the parameters of each group when the run began."""
    groups = state.get("start_groups")
    if groups is None:  # an older version wrote it: what was added came after the others
        groups = state["optimizer"]["param_groups"][: len(state["start"]["options"])]
    return [list(group[PARAMETERS]) for group in groups]


def _kind_of(value: object) -> str | None:
    if value is None:
        return None
    return _public_name(f"{type(value).__module__}.{type(value).__qualname__}")


def _public_name(name: str | None) -> str | None:
    """Return ``task.Class`` for a class of the experiment, wherever its folder lies."""
    return name and _PRIVATE_PACKAGE.sub("", name)
