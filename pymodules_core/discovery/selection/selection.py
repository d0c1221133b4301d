"""Decides which of the specs that providers gave join the pool.

Order never picks a winner: two providers of one name are an error until ``[modules.override]``
names one.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from pymodules_core.discovery.plugins.missing import FormerPlugins, add_former_provider
from pymodules_core.discovery.plugins.records import names_of, normalise
from pymodules_core.errors import DuplicateModuleError, SettingsError, closest_match, list_words
from pymodules_core.experiment import Experiment
from pymodules_core.names import check_distinct
from pymodules_core.settings import ModulesSettings
from pymodules_core.specs import DistributionOrigin, ModuleSpec

logger = logging.getLogger("pymodules_core")


def select_specs(specs: Sequence[ModuleSpec], experiment: Experiment | None) -> list[ModuleSpec]:
    """Apply ``include``, ``exclude`` and ``override``.

    Args:
        specs: What the providers gave, names may repeat.
        experiment: Gives ``[modules]``; None takes all.

    Returns:
        One spec a name, sorted by name.

    Raises:
        DuplicateModuleError: Two providers of one name, or names that differ only in case.
        SettingsError: A table names a module or provider that nobody gives.
    """
    settings = experiment.settings.modules if experiment else ModulesSettings()
    former = FormerPlugins(experiment)
    by_name: dict[str, list[ModuleSpec]] = defaultdict(list)
    for spec in specs:
        by_name[spec.name].append(spec)
    names = sorted(by_name)
    try:
        for table in ("override", "settings", "args"):
            for name in getattr(settings, table):
                if name not in by_name:
                    raise _no_such_module(table, name, names, former)
        _report_patterns_without_match(settings, names)
        chosen = [
            _choose(name, by_name[name], settings.override.get(name), former)
            for name in names
            if is_included(name, settings)
        ]
    except SettingsError as error:
        if experiment is not None:
            experiment.locate(error)
        raise
    check_distinct(spec.name for spec in chosen)
    return chosen


def is_included(name: str, settings: ModulesSettings) -> bool:
    """Return whether ``include`` and ``exclude`` leave a module in."""
    return _matches_any(name, settings.include) and not _matches_any(name, settings.exclude)


def _choose(
    name: str, specs: list[ModuleSpec], override: str | None, former: FormerPlugins
) -> ModuleSpec:
    if override is not None:
        matching = [spec for spec in specs if normalise(override) in names_of(spec.origin)]
        if not matching:
            raise _no_such_provider(name, specs, override, former)
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
        f'{name} = "{_shortest_unique_provider(specs)}"',
    )


def _no_such_module(
    table: str, name: str, known: list[str], former: FormerPlugins
) -> SettingsError:
    near = closest_match(name, known)
    error = SettingsError(
        f"modules.{table}.{name}: no module is called {name!r}; there are: {list_words(known)}",
        key=f"modules.{table}.{name}",
        found=name,
        closest=near,
        fix=None if near else "remove it, or add the module",
    )
    return add_former_provider(error, former.providers.get(name), otherwise="remove it there")


def _no_such_provider(
    name: str, specs: list[ModuleSpec], override: str, former: FormerPlugins
) -> SettingsError:
    providers = [spec.origin.provider for spec in specs if spec.origin is not None]
    near = closest_match(override, providers)
    error = SettingsError(
        f"modules.override.{name}: {override!r} provides no module {name!r}; "
        f"its providers are: {list_words(providers)}",
        key=f"modules.override.{name}",
        found=override,
        closest=near,
        fix=None if near else f"pip install {override}, or remove it there",
    )
    origin = former.providers.get(name)
    if normalise(override) in names_of(origin):
        add_former_provider(error, origin, otherwise="remove it there")
    return error


def _shortest_unique_provider(specs: list[ModuleSpec]) -> str:
    """Return a name for the last provider that means no other of them."""
    last = specs[-1].origin
    if isinstance(last, DistributionOrigin):
        names = [spec.origin.provider for spec in specs if spec.origin is not None]
        if names.count(last.provider) > 1:
            return f"{last.distribution}:{last.entry_point}"
    return last.provider if last is not None else "files"


def _report_patterns_without_match(settings: ModulesSettings, names: list[str]) -> None:
    for key in ("include", "exclude"):
        for pattern in getattr(settings, key):
            if pattern != "*" and not any(fnmatchcase(name, pattern) for name in names):
                logger.warning(
                    "modules.%s: %r matches no module; there are: %s",
                    key,
                    pattern,
                    list_words(names),
                )


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
