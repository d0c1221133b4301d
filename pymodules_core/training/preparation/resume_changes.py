"""What changed between the start of a run and its resume."""

import difflib
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.checkpoints.store.records import CommitRecord
from pymodules_core.discovery import PluginManager
from pymodules_core.discovery.plugins.distribution_files import digest_of_files
from pymodules_core.discovery.plugins.missing import install_command
from pymodules_core.discovery.selection.required_plugins import why_left_out
from pymodules_core.errors import RunChangedError, SettingsError, list_words
from pymodules_core.experiment import Experiment
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import FRZN
from pymodules_core.run_files import SOURCES_DIR_NAME, read_run_facts
from pymodules_core.settings import ExperimentSettings, OptimizerSettings
from pymodules_core.settings.structure import unstructure
from pymodules_core.specs import DistributionOrigin
from pymodules_core.training.preparation.torch_flags import setter_of

logger = logging.getLogger("pymodules_core")

# What decides how long a run trains, where, and what it keeps; not what it learns.
_FREE_KEYS = {
    "train.device",
    "train.epochs",
    "train.max_minutes",
    "train.max_steps",
    "train.num_workers",
    "train.patience",
    "train.startup",
}
_FREE_TABLES = ("checkpoints.", "plugins.disable", "plugins.allow", "plugins.close")
# How processes share a module, which may be others and more than before.
_FREE_OF_MODULES = re.compile(r"modules\.settings\.\w+\.(parallel|sharded|forward_methods)\b")
_MOST_LINES = 12
_MOST_FILES = 5


def with_overrides_of(facts: Mapping[str, Any], experiment: Experiment) -> Experiment:
    """Open an experiment with the overrides that its run has laid under its own.

    Args:
        facts: What a commit, or ``run.json``, says of the run.
        experiment: Whose run.
    """
    found = facts.get("overrides")
    kept: Mapping[str, Any] = found if isinstance(found, Mapping) else {}  # run.json may be damaged
    if kept.keys() <= experiment.overrides.keys():
        return experiment
    return Experiment.open(
        experiment.path, data_home=experiment.data_home, overrides={**kept, **experiment.overrides}
    )


def check_changes(
    record: CommitRecord,
    now: Mapping[str, Any],
    experiment: Experiment,
    plugins: PluginManager,
    *,
    is_accepted: bool,
) -> list[str]:
    """Compare what the latest commit records of its run with how it would be resumed.

    Args:
        record: The newest commit.
        now: The facts of the resumed run.
        experiment: Whose run.
        plugins: The plugins that there are, to say why one that there was takes no part.
        is_accepted: Return the changes instead of refusing them.

    Returns:
        A line or more for each change.

    Raises:
        RunChangedError: There are changes, and nobody accepted them.
    """
    before = record.provenance
    changes = [
        *_changed_sources(before, now, experiment),
        *_changed_settings(before, now),
        *_changed_flags(before, now),
        *_changed_plugins(before, now, plugins),
        *_changed_files(before, now, experiment),
    ]
    if changes and not is_accepted:
        shown = "\n".join(f"  {line}" for change in changes for line in change.splitlines())
        raise RunChangedError(
            f"experiment {experiment.name!r} is not what its run began with\n{shown}",
            found=changes,
            fix=f"put it back{_how(before, now, plugins)}, or resume with the changes: "
            "--resume --accept-changes",
        )
    for name, value in _inexact(before, now):
        logger.warning(
            "the run continues, but not bit for bit as if it had never stopped: %s %s", name, value
        )
    return changes


def refuse_other_freezing(record: CommitRecord, pool: ModulePool) -> None:
    """Refuse modules that are frozen now and were not, or the other way round.

    Raises:
        SettingsError: There is one.
    """
    frozen = record.pools[FRZN].modules if FRZN in record.pools else {}
    known = {name for stored in record.pools.values() for name in stored.modules}
    for name in pool:
        if pool.is_frozen(name) == (name in frozen) or (
            name not in known and not pool.is_frozen(name)
        ):
            continue
        now, then = ("frozen", "not") if pool.is_frozen(name) else ("not frozen", "frozen")
        raise SettingsError(
            f"module {name!r} is {now} and was {then if name in known else 'not there'} when the "
            "run began",
            key=f"modules.settings.{name}.frozen",
            found=name,
            fix="a run keeps what is frozen: begin another experiment, whose modules take their "
            "weights from this one by load_weights_from_exp",
        )


def _changed_sources(
    before: Mapping[str, Any], now: Mapping[str, Any], experiment: Experiment
) -> Iterator[str]:
    then, today = before.get("sources"), now["sources"]
    if then is None:  # an older version wrote it
        return
    for name in sorted({*then, *today}):
        if name not in then:
            yield f"{name} is new"
        elif name not in today:
            yield f"{name} is gone"
        elif then[name] != today[name]:
            copy = experiment.data_dir / SOURCES_DIR_NAME / name
            yield "\n    ".join((f"{name} changed", *_diff(copy, experiment.path / name)))


def _diff(old: Path, new: Path) -> list[str]:
    try:
        before, after = (path.read_text("utf-8").splitlines() for path in (old, new))
    except (OSError, UnicodeDecodeError):
        return []
    lines = [
        line
        for line in difflib.unified_diff(before, after, n=0, lineterm="")
        if line[:1] in "+-" and not line.startswith(("---", "+++"))
    ]
    more = len(lines) - _MOST_LINES
    return lines[:_MOST_LINES] + ([f"… {more} more lines"] if more > 0 else [])


def _changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if "settings" not in before:
        return
    then, today = (_flat(one["settings"]) for one in (before, now))
    optimizers = {*before["settings"]["optimizers"], *now["settings"]["optimizers"]}
    # What is not set, or was not known to an older version, is what it is by default.
    default = attrs.evolve(
        ExperimentSettings(), optimizers=dict.fromkeys(optimizers, OptimizerSettings())
    )
    then, today = (_flat(unstructure(default)) | one for one in (then, today))
    for key in sorted({*then, *today}):
        if key in _FREE_KEYS or key.startswith(_FREE_TABLES) or _FREE_OF_MODULES.match(key):
            continue
        # By their texts: NaN is equal to nothing.
        if (then.get(key) != today.get(key)) and _shown(then, key) != _shown(today, key):
            yield f"{key}: {_shown(then, key)} -> {_shown(today, key)}"


def _changed_flags(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    then, today = before.get("torch_flags", {}), now["torch_flags"]
    for name in today:
        if name in then and then[name] != today[name]:
            yield (
                f"torch flag {name}: {then[name]!r} -> {today[name]!r} (set by {setter_of(name)}: "
                "look for it in pymodules/task.py and the module files)"
            )


def _changed_plugins(
    before: Mapping[str, Any], now: Mapping[str, Any], plugins: PluginManager
) -> Iterator[str]:
    if "plugins" not in before:
        return
    then, today = (
        {one["name"]: one.get("version", "") for one in side.get("plugins", ())}
        for side in (before, now)
    )
    for name in sorted({*then, *today}):
        if name not in then:
            yield f"plugin {name} {today[name]} is new".replace("  ", " ")
        elif name not in today:
            what, _ = why_left_out(plugins, name) or ("is gone", "")
            yield f"plugin {name} {then[name]} {what}".replace("  ", " ")
        elif then[name] != today[name]:
            yield f"plugin {name}: {then[name]} -> {today[name]}"


def _changed_files(
    before: Mapping[str, Any], now: Mapping[str, Any], experiment: Experiment
) -> Iterator[str]:
    """Compare the files of distributions whose version is the same."""
    digests = before.get("distributions", {})
    versions = {plugin.distribution: plugin.version for plugin in _plugins(before).values()}
    for one in now["distributions"]:
        name, files = one["distribution"], one["files"]
        is_known = name in digests and versions.get(name) == one["version"]
        if not is_known or digests[name] == digest_of_files(files):
            continue
        then = _files_then(experiment, name, digests[name])
        changed = [path for path in sorted({*then, *files}) if then.get(path) != files.get(path)]
        named = f": {list_words(changed, most=_MOST_FILES)}" if then else ""
        yield f"plugin {name} {one['version']}: its files changed{named}"


def _files_then(experiment: Experiment, distribution: str, digest: str) -> Mapping[str, Any]:
    """Return the files of a distribution from ``run.json``, if that process made the commit."""
    locked = read_run_facts(experiment.path).get("distributions")
    for one in locked if isinstance(locked, list) else ():
        if isinstance(one, Mapping) and one.get("distribution") == distribution:
            files = one.get("files")
            if isinstance(files, dict) and digest_of_files(files) == digest:
                return files
    return {}


def _how(before: Mapping[str, Any], now: Mapping[str, Any], plugins: PluginManager) -> str:
    """Say what brings back the plugins that there were, and no others."""
    then, today = _plugins(before), _plugins(now)
    left_out = [why_left_out(plugins, name) for name in sorted(then.keys() - today.keys())]
    let_in = dict.fromkeys(fix for _, fix in filter(None, left_out))
    command = install_command(one for name, one in then.items() if today.get(name) != one)
    new = ", ".join(f'"{name}"' for name in sorted(today.keys() - then.keys()))
    disable = f"[plugins] disable = [{new}]" if new else None
    how = "; ".join(filter(None, (command, *let_in, disable)))
    return f" ({how})" if how else ""


def _plugins(provenance: Mapping[str, Any]) -> dict[str, DistributionOrigin]:
    """Return the plugins of distributions by their names."""
    origins = (
        (one["name"], DistributionOrigin.from_json(one)) for one in provenance.get("plugins", ())
    )
    return {name: origin for name, origin in origins if origin is not None}


def _inexact(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("processes", "threads", "device"):
        if key in before and before[key] != now[key]:
            yield key, f"{before[key]} -> {now[key]}"
    then, today = before.get("versions", {}), now.get("versions", {})
    for name in ("torch", "numpy"):
        if name in then and then[name] != today.get(name):
            yield name, f"{then[name]} -> {today.get(name)}"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as dotted keys; empty ones say nothing."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            # As JSON gives it back: a record knows no tuples.
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


def _shown(table: Mapping[str, Any], key: str) -> str:
    return repr(table[key]) if key in table else "not set"
