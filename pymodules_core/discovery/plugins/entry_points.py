"""Reads the plugins that installed distributions declare, without importing them."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import attrs

from pymodules_core.discovery.plugins.records import PluginRecord, normalise
from pymodules_core.errors import display_path
from pymodules_core.hookspecs import PROJECT_NAME
from pymodules_core.installed import distributions, unreadable_entries
from pymodules_core.specs import CodeOrigin, DistributionOrigin

logger = logging.getLogger("pymodules_core")

_GROUP_HEADER = re.compile(rf"^\s*\[\s*{PROJECT_NAME}\s*\]", re.MULTILINE)
_GROUP_BYTES = PROJECT_NAME.encode()


@attrs.frozen
class FoundPlugin:
    """An entry point and the record made of its metadata.

    Attributes:
        record: What is known of the plugin.
        load: Imports it.
        fault: What is wrong with the metadata, so that it cannot be imported.
        fix: What to do about that.
    """

    record: PluginRecord
    load: Callable[[], object]
    fault: Exception | None = None
    fix: str = ""


def find_entry_points(*, warns: bool = True) -> list[FoundPlugin]:
    """Return every entry point of the group, sorted by distribution and entry point.

    A distribution that appears twice on ``sys.path`` counts once, as the import system sees it: the
    first. No plugin of the other is used, whatever it is called, and a warning names both. One with
    damaged metadata is there with its ``fault``, and so is a folder or zip that cannot be read.

    Args:
        warns: Warn of what is there twice.
    """
    found: dict[str, FoundPlugin] = {}
    # Distribution to the first of its plugins: whatever else has its name is another copy.
    firsts: dict[str, PluginRecord] = {}
    for plugin in (*_read_distributions(), *_unreadable()):
        record = plugin.record
        first = firsts.setdefault(normalise(record.origin.provider), record)
        if _copy_of(record) != _copy_of(first):
            if warns:
                _shadow(_copy_of(record), first)
        elif record.name not in found:
            found[record.name] = plugin
        elif warns:
            logger.warning(
                "%s names its entry point twice: %s is used, and %s is not. Fix: report it to %s",
                record.origin,
                found[record.name].record.target,
                record.target,
                record.origin.provider,
            )
    return [found[name] for name in sorted(found)]


def _copy_of(record: PluginRecord) -> str:
    """Return what identifies a copy of a distribution: version and folder."""
    version = getattr(record.origin, "version", "")
    return f"{record.origin.provider} {version} in {record.location}"


def _shadow(other: str, used: PluginRecord) -> None:
    if other in used.shadowed:  # reported with another of its entry points
        return
    used.shadowed.append(other)
    logger.warning(
        "%s is installed twice: %s is used, and %s is not. Fix: pip uninstall %s until none is "
        "left and install it once, or take one folder or zip off sys.path",
        used.origin.provider,
        _copy_of(used),
        other,
        used.origin.provider,
    )


def _read_distributions() -> Iterator[FoundPlugin]:
    seen: set[tuple[str, str, str]] = set()
    for distribution in distributions():
        try:
            # The text decides before anything is parsed: of 300 distributions few are plugins.
            text = distribution.read_text("entry_points.txt")
        # Damaged metadata raises anything: UnicodeDecodeError, KeyError, TypeError.
        except Exception as error:  # noqa: BLE001  reported with the distribution's name
            if not isinstance(error, UnicodeDecodeError) or _GROUP_BYTES in error.object:
                yield _damaged(distribution, error)
            continue
        if not text or not _GROUP_HEADER.search(text):
            continue
        try:
            yield from _read_plugins(distribution, seen)
        except Exception as error:  # noqa: BLE001  reported with the distribution's name
            yield _damaged(distribution, error)


def _read_plugins(distribution: Any, seen: set[tuple[str, str, str]]) -> list[FoundPlugin]:
    # Each of `distribution.name` and `distribution.version` parses the file again.
    metadata = distribution.metadata
    name, version = metadata["Name"], metadata["Version"]
    if not (name and version):
        raise ValueError("METADATA has an empty Name or Version")
    identity = (str(distribution.locate_file("")), name, version)
    if identity in seen:
        return []
    seen.add(identity)
    editable = editable_project(distribution)
    # Text first: of a distribution in a zip it is not a path of the file system.
    location = editable or display_path(Path(str(distribution.locate_file(""))))
    return [
        FoundPlugin(
            PluginRecord(
                name=f"{name}:{point.name}",
                origin=DistributionOrigin(name, version, point.name),
                target=point.value,
                is_editable=editable is not None,
                location=location,
            ),
            point.load,
        )
        for point in distribution.entry_points.select(group=PROJECT_NAME)
    ]


def _damaged(distribution: Any, error: Exception) -> FoundPlugin:
    folder = metadata_folder(distribution)
    # Of what lies in a zip only the zip can be removed.
    on_disk = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return _faulty(
        folder.name,
        display_path(folder),
        error,
        fix=f"reinstall the distribution, or remove {display_path(on_disk)}",
    )


def metadata_folder(distribution: Any) -> Path:
    """Return where a distribution's metadata lies: all to name it by where that is damaged."""
    # No public attribute gives it.
    return Path(str(getattr(distribution, "_path", distribution)))


def _unreadable() -> Iterator[FoundPlugin]:
    fix = "replace it by the str of a readable folder or zip, or take it off sys.path"
    for entry, error in {str(entry): error for entry, error in unreadable_entries()}.items():
        yield _faulty(entry, entry, error, fix=fix)


def _faulty(name: str, location: str, error: Exception, *, fix: str) -> FoundPlugin:
    record = PluginRecord(name=name, origin=CodeOrigin(name), location=location)
    return FoundPlugin(record, load=lambda: None, fault=error, fix=fix)


def editable_project(distribution: Any) -> str | None:
    """Return the folder of a project that is installed in editable mode; None for any other.

    Source: PEP 610, ``direct_url.json``.
    """
    text = distribution.read_text("direct_url.json")
    try:
        content = json.loads(text or "{}")
        if not content.get("dir_info", {}).get("editable", False):
            return None
        return display_path(Path(url2pathname(urlsplit(content["url"]).path)))
    except (ValueError, AttributeError, KeyError, TypeError):
        return None
