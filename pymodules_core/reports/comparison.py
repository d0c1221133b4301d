"""Two or more experiments side by side: a row for each thing that can be equal or differ."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import attrs

from pymodules_core.reports.history import EVAL, TRAIN, History, finite, table, tables, text, whole
from pymodules_core.reports.subjects import Subject
from pymodules_core.reports.text import duration_text, number_text, origin_text, setting_text
from pymodules_core.settings.structure import unstructure

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_DIGEST_CHARACTERS = 12

BEST_VALUE = "best value"
GIT_COMMIT = "git commit"


class Group(StrEnum):
    """What rows are about, in the order they are shown."""

    RESULT = "result"
    EVAL = "final eval metrics"
    TRAIN = "final train metrics"
    SETTINGS = "settings"
    MODULES = "modules"
    VERSIONS = "versions"
    PLUGINS = "plugins"
    FILES = "files"


# What a run has in common with most others is shown where it does not.
_ONLY_WHERE_DIFFERENT = frozenset({Group.VERSIONS, Group.PLUGINS, Group.FILES})
# An experiment without a run has these too, and does not show them.
_KNOWN_BY_RUNS = frozenset({Group.MODULES, *_ONLY_WHERE_DIFFERENT})
_IS_MEASURED = frozenset({Group.EVAL, Group.TRAIN})


@attrs.frozen(kw_only=True)
class Row:
    """One thing of every experiment.

    Attributes:
        group: What it is about.
        key: What it is; dotted for settings.
        values: Label to value; an experiment that has no such thing is not in it.
        is_changed: Whether the experiments differ in it.
        best: Labels of those that are best in it; empty where that cannot be said.
    """

    group: Group
    key: str
    values: Mapping[str, Any]
    is_changed: bool
    best: tuple[str, ...] = ()

    def cell(self, label: str) -> str | None:
        """Return the value of one experiment as a text; None where it has none."""
        if label not in self.values:
            return None
        value = self.values[label]
        if self.key == "wall_s" and self.group is Group.RESULT:
            return duration_text(value)
        if self.group in _IS_MEASURED or (self.key == BEST_VALUE and self.group is Group.RESULT):
            return number_text(value)
        if self.group is Group.FILES or self.key == GIT_COMMIT:
            return str(value)[:_SHOWN_DIGEST_CHARACTERS]
        if self.group is Group.MODULES and isinstance(value, int) and not isinstance(value, bool):
            return f"{value:,}"
        return setting_text(value)


@attrs.frozen(kw_only=True)
class Comparison:
    """Experiments side by side.

    Attributes:
        labels: The experiments, in the order they were named.
        rows: What they have, grouped.
        goal: The metric and mode that decide which is best; None where they differ, or where
            fewer than two have a best value.
        has_several_goals: Whether they differ.
    """

    labels: list[str]
    rows: list[Row]
    goal: tuple[str, str] | None
    has_several_goals: bool

    def changed_rows(self) -> list[Row]:
        """Return the rows in which the experiments differ."""
        return [row for row in self.rows if row.is_changed]


def compare(subjects: Sequence[Subject]) -> Comparison:
    """Put experiments side by side."""
    labels = [subject.label for subject in subjects]
    trained = [subject.label for subject in subjects if subject.history]
    columns = {subject.label: _describe(subject) for subject in subjects}
    goals = _goals(subjects)
    goal = _common_goal(goals)
    rows = [
        row
        for group in Group
        for row in _rows_of(
            group,
            {label: column[group] for label, column in columns.items()},
            asked=trained if group in _KNOWN_BY_RUNS else labels,
            goal=goal,
        )
    ]
    return Comparison(labels=labels, rows=rows, goal=goal, has_several_goals=len(set(goals)) > 1)


def _rows_of(
    group: Group,
    columns: Mapping[str, Mapping[str, Any]],
    *,
    asked: Sequence[str],
    goal: tuple[str, str] | None,
) -> Iterator[Row]:
    for key in _merged_keys(columns.values()):
        values = {label: column[key] for label, column in columns.items() if key in column}
        is_changed = _differ(values, asked)
        if is_changed or group not in _ONLY_WHERE_DIFFERENT:
            best = _best_labels(group, key, values, goal)
            yield Row(group=group, key=key, values=values, is_changed=is_changed, best=best)


def _common_goal(goals: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    is_decided = len(goals) > 1 and len(set(goals)) == 1 and goals[0][1] in {"min", "max"}
    return goals[0] if is_decided else None


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted keys to values; a part of a key that is not bare is quoted, as TOML has it."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}{key if _BARE_KEY.fullmatch(str(key)) else _quote(str(key))}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}.")
        else:
            # As a run writes it as JSON, so that settings of today's files are equal to those.
            flat[path] = list(value) if isinstance(value, tuple) else value
    return flat


def _describe(subject: Subject) -> dict[Group, dict[str, Any]]:
    history = subject.history or History(state="not trained", facts={}, rows=[], notes=[])
    facts = history.facts
    recorded = table(facts, "settings") or unstructure(subject.experiment.settings)
    return {
        Group.RESULT: _result(history),
        Group.EVAL: _last_metrics(history, EVAL),
        Group.TRAIN: _last_metrics(history, TRAIN),
        Group.SETTINGS: flatten(recorded),
        Group.MODULES: _modules(history),
        Group.VERSIONS: _versions(facts),
        Group.PLUGINS: {
            text(plugin, "name"): origin_text(plugin)
            for plugin in tables(facts, "plugins")
            # A task file is compared by its content, below.
            if plugin.get("kind") != "file"
        },
        Group.FILES: dict(table(facts, "files")),
    }


def _result(history: History) -> dict[str, Any]:
    facts, best = history.facts, history.best
    found: dict[str, Any] = {"state": history.state}
    if best is not None:
        mode = history.setting("mode")
        found["monitor"] = f"{best.metric} ({mode})" if mode else best.metric
        found[BEST_VALUE] = best.value
        found["best epoch"] = best.epoch
    measured = {
        "epochs": whole(facts.get("epoch")),
        "steps": whole(facts.get("step")),
        "wall_s": finite(facts.get("wall_s")),
        "device": text(facts, "device") or None,
    }
    found |= {name: value for name, value in measured.items() if value is not None}
    if ended := text(facts, "error") or text(facts, "stop_reason"):
        found["ended"] = ended
    return found


def _last_metrics(history: History, phase: str) -> dict[str, Any]:
    row = history.last_row(phase)
    return dict(row.metrics) if row else {}


def _modules(history: History) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in tables(history.facts, "modules"):
        name = text(module, "name")
        found[f"{name}.class"] = module.get("class")
        found[f"{name}.parameters"] = module.get("parameters")
        found[f"{name}.frozen"] = module.get("frozen")
        found[f"{name}.weights"] = module.get("weights") or "built"
        found[f"{name}.origin"] = origin_text(table(module, "origin"))
    return found


def _versions(facts: Mapping[str, Any]) -> dict[str, Any]:
    git_commit = text(facts, "git_commit")
    return {**table(facts, "versions"), **({GIT_COMMIT: git_commit} if git_commit else {})}


def _merged_keys(columns: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return all keys; one that only a later column has follows the key it follows there."""
    merged: list[str] = []
    for column in columns:
        known, place = set(merged), len(merged)
        for key in column:
            if key in known:
                place = merged.index(key) + 1
            else:
                merged.insert(place, key)
                place += 1
    return merged


def _differ(values: Mapping[str, Any], labels: Sequence[str]) -> bool:
    found = [values[label] for label in labels if label in values]
    if not found:
        return False
    return len(found) < len(labels) or not all(_same(found[0], other) for other in found[1:])


def _same(first: Any, second: Any) -> bool:
    # Python takes True for 1.
    if isinstance(first, bool) is not isinstance(second, bool):
        return False
    return bool(first == second)


def _goals(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """Return metric and mode of each run that has a best value."""
    return [
        (history.best.metric, str(history.setting("mode") or "min"))
        for history in (subject.history for subject in subjects)
        if history is not None and history.best is not None and history.best.value is not None
    ]


def _best_labels(
    group: Group, key: str, values: Mapping[str, Any], goal: tuple[str, str] | None
) -> tuple[str, ...]:
    if goal is None or (group, key) not in {(Group.RESULT, BEST_VALUE), (Group.EVAL, goal[0])}:
        return ()
    numbers = {label: value for label, value in values.items() if value is not None}
    if not numbers:
        return ()
    choose: Callable[[Iterable[Any]], Any] = min if goal[1] == "min" else max
    best = choose(numbers.values())
    return tuple(label for label, value in numbers.items() if value == best)


def _quote(key: str) -> str:
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
