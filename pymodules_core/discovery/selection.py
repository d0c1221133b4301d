"""Decides which of the specs that providers gave join the pool.

Order never picks a winner: two providers of one name are an error until ``[modules.override]``
names one.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pymodules_core.errors import (
    DuplicateModuleError,
    SettingsError,
    closest_match,
    list_words,
)
from pymodules_core.names import check_distinct
from pymodules_core.settings import ModulesSettings
from pymodules_core.settings.structure import KeyPath
from pymodules_core.specs import DistributionOrigin, ModuleSpec

logger = logging.getLogger("pymodules_core")


def select_specs(
    specs: Sequence[ModuleSpec],
    settings: ModulesSettings,
    *,
    file: Path | None = None,
    line_of: Callable[[KeyPath], int | None] = lambda _: None,
) -> list[ModuleSpec]:
    """Apply ``include``, ``exclude`` and ``override``.

    Args:
        specs: What the providers gave, names may repeat.
        settings: ``[modules]``.
        file: The ``experiment.toml``, for messages.
        line_of: Finds the line of a key in ``file``.

    Returns:
        One spec a name, sorted by name.

    Raises:
        DuplicateModuleError: Two providers of one name, or names that differ only in case.
        SettingsError: A table names a module or provider that nobody gives.
    """
    by_name: dict[str, list[ModuleSpec]] = defaultdict(list)
    for spec in specs:
        by_name[spec.name].append(spec)
    for table in ("override", "settings", "args"):
        _check_table_names(table, getattr(settings, table), by_name, file, line_of)
    _report_patterns_without_match(settings, by_name)
    chosen = [
        _choose(name, by_name[name], settings.override.get(name), file, line_of)
        for name in sorted(by_name)
        if _matches_any(name, settings.include) and not _matches_any(name, settings.exclude)
    ]
    check_distinct(spec.name for spec in chosen)
    return chosen


def _choose(
    name: str,
    specs: list[ModuleSpec],
    override: str | None,
    file: Path | None,
    line_of: Callable[[KeyPath], int | None],
) -> ModuleSpec:
    if override is not None:
        matching = [spec for spec in specs if _normalise(override) in _provider_names(spec)]
        if len(matching) == 1:
            return matching[0]
        if not matching:
            providers = [spec.origin.provider for spec in specs if spec.origin is not None]
            raise SettingsError(
                f"modules.override.{name}: {override!r} provides no module {name!r}; "
                f"its providers are: {list_words(providers)}",
                file=file,
                line=line_of(("modules", "override", name)),
                key=f"modules.override.{name}",
                found=override,
                closest=closest_match(override, providers),
            )
        specs = matching
    if len(specs) == 1:
        return specs[0]
    count = "twice" if len(specs) == 2 else f"{len(specs)} times"
    listed = "".join(f"\n  - {spec.origin}" for spec in specs)
    raise DuplicateModuleError(
        f"module {name!r} is provided {count}:{listed}",
        key=f"modules.override.{name}",
        found=[str(spec.origin) for spec in specs],
        fix="pick one in experiment.toml:  [modules.override]  "
        + f'{name} = "{_shortest_unique_provider(specs)}"',
    )


def _provider_names(spec: ModuleSpec) -> set[str]:
    if spec.origin is None:
        return set()
    names = {spec.origin.provider}
    if isinstance(spec.origin, DistributionOrigin):
        names.add(f"{spec.origin.distribution}:{spec.origin.entry_point}")
    return {_normalise(name) for name in names}


def _shortest_unique_provider(specs: list[ModuleSpec]) -> str:
    """Give a name for the last provider that means no other of them."""
    last = specs[-1].origin
    if isinstance(last, DistributionOrigin):
        names = [spec.origin.provider for spec in specs if spec.origin is not None]
        if names.count(last.provider) > 1:
            return f"{last.distribution}:{last.entry_point}"
    return last.provider if last is not None else "files"


def _check_table_names(
    table: str,
    names: Iterable[str],
    known: Iterable[str],
    file: Path | None,
    line_of: Callable[[KeyPath], int | None],
) -> None:
    for name in names:
        if name not in set(known):
            raise SettingsError(
                f"modules.{table}.{name}: no module is called {name!r}; "
                f"there are: {list_words(sorted(known))}",
                file=file,
                line=line_of(("modules", table, name)),
                key=f"modules.{table}.{name}",
                found=name,
                closest=closest_match(name, known),
            )


def _report_patterns_without_match(settings: ModulesSettings, names: Iterable[str]) -> None:
    for key in ("include", "exclude"):
        for pattern in getattr(settings, key):
            if pattern != "*" and not any(fnmatchcase(name, pattern) for name in names):
                logger.warning(
                    "modules.%s: %r matches no module; there are: %s",
                    key,
                    pattern,
                    list_words(sorted(names)),
                )


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
