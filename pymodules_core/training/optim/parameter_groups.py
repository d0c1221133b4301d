"""The parameter groups that an optimizer has after a resume.

A task may add groups during a run, move parameters from one to another, and remove groups. What it
changed is the difference between the groups that an optimizer began the run with and those that
were saved.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any

import attrs

PARAMETERS = "params"


@attrs.frozen(kw_only=True)
class RestoredGroup:
    """A group of an optimizer after a resume.

    Attributes:
        parameters: Their names.
        start: The index of the task's own group that this is; None for one that was added.
        options: Its encoded options; None where those of today hold.
    """

    parameters: list[str]
    start: int | None
    options: Mapping[str, Any] | None


@attrs.frozen(kw_only=True)
class RestoredGroups:
    """All groups of an optimizer after a resume.

    Attributes:
        groups: In their order.
        untrained: Parameters that were added during the run, and that no group has now.
        undone: Parameters that were moved or removed during the run, and now are where today's task
            puts them.
    """

    groups: list[RestoredGroup]
    untrained: list[str]
    undone: list[str]

    @property
    def names(self) -> list[str]:
        """The parameters of all groups."""
        return [name for group in self.groups for name in group.parameters]

    @property
    def has_changed_groups(self) -> bool:
        """Whether the task makes other groups than before, whose options are today's."""
        return any(one.start is not None and one.options is None for one in self.groups)


def restored_groups(
    saved: Sequence[Mapping[str, Any]],
    start_groups: Sequence[Sequence[str]],
    today: Sequence[Sequence[str]],
    known: Collection[str],
) -> RestoredGroups:
    """Return the saved groups, or today's with what the run added where the task makes others.

    Args:
        saved: The groups as they were saved, with names as parameters.
        start_groups: The parameters of each group at the start of the run.
        today: The parameters of each group as the task makes them now.
        known: The names of all parameters of the pool.
    """
    before = {name: start for start, names in enumerate(start_groups) for name in names}
    starts = _starts(saved, before)
    undone: list[str] = []
    if list(map(set, start_groups)) == list(map(set, today)):
        groups = [
            restored
            for group, start in zip(saved, starts, strict=True)
            if (restored := _saved_group(group, start, known)).parameters or not group[PARAMETERS]
        ]
    else:
        is_there = set(chain(*today))
        added = set(known) - before.keys() - is_there
        groups = _merged(saved, starts, today, added, is_matched=len(start_groups) == len(today))
        moved = _moved(saved, starts, before)
        undone = [name for name in moved if name in is_there]
    settled = {*before, *chain(*(group.parameters for group in groups))}
    saved_names = chain(*(group[PARAMETERS] for group in saved))
    return RestoredGroups(
        groups=groups,
        untrained=[name for name in saved_names if name not in settled],
        undone=undone,
    )


def _moved(
    saved: Sequence[Mapping[str, Any]], starts: Sequence[int | None], before: Mapping[str, int]
) -> list[str]:
    """Return the parameters of the start that are in another saved group than before, or none."""
    after: dict[str, int | None] = {}
    for group, start in zip(saved, starts, strict=True):
        after |= dict.fromkeys(group[PARAMETERS], start)
    return [name for name, start in before.items() if name not in after or after[name] != start]


def without_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a group."""
    return {key: value for key, value in group.items() if key != PARAMETERS}


def _starts(saved: Sequence[Mapping[str, Any]], before: Mapping[str, int]) -> list[int | None]:
    """Return which group of the start each saved one is: the first with a parameter of it."""
    starts: list[int | None] = []
    for group in saved:
        found = (before[name] for name in group[PARAMETERS] if name in before)
        starts.append(next((one for one in found if one not in starts), None))
    return starts


def _merged(
    saved: Sequence[Mapping[str, Any]],
    starts: Sequence[int | None],
    today: Sequence[Sequence[str]],
    added: Collection[str],
    *,
    is_matched: bool,
) -> list[RestoredGroup]:
    """Return today's groups, with the parameters that the run added to them or in further groups.

    Args:
        saved: The groups as they were saved.
        starts: Which group of the start each of them is.
        today: The groups as the task makes them.
        added: The parameters that the run added.
        is_matched: Today's groups are as many as those of the start, so that one is the other.
    """
    groups = [
        RestoredGroup(parameters=list(names), start=start, options=None)
        for start, names in enumerate(today)
    ]
    for group, start in zip(saved, starts, strict=True):
        restored = _saved_group(group, start, added)
        if start is None and restored.parameters:
            groups.append(restored)
        elif start is not None and is_matched:
            names = [*groups[start].parameters, *restored.parameters]
            groups[start] = attrs.evolve(restored, parameters=names)
    return groups


def _saved_group(
    group: Mapping[str, Any], start: int | None, known: Collection[str]
) -> RestoredGroup:
    return RestoredGroup(
        parameters=[name for name in group[PARAMETERS] if name in known],
        start=start,
        options=without_parameters(group),
    )
