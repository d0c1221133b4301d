"""Weights of an older version of a plugin, on their way into a module of today's."""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from pymodules_core.checkpoints.file_format.layout_version import LayoutVersion
from pymodules_core.checkpoints.file_format.state_dict import same_bytes
from pymodules_core.checkpoints.loading.pool_reader import StoredModule
from pymodules_core.discovery.plugins.records import normalise
from pymodules_core.errors import WeightMismatchError
from pymodules_core.module_pool import Migration, PoolEntry
from pymodules_core.specs import DistributionOrigin, Origin

logger = logging.getLogger("pymodules_core")


@attrs.frozen(kw_only=True)
class Migrated:
    """Weights in today's layout.

    Attributes:
        state: Keys to values.
        versions: torch's versions of the module's parts, by their paths.
        migration: How it came about.
    """

    state: dict[str, Any]
    versions: dict[str, Any]
    migration: Migration


def bring_to_today(
    state: Mapping[str, Any],
    metadata: Mapping[str, Any],
    today: Mapping[str, Any],
    *,
    entry: PoolEntry,
    stored: StoredModule,
) -> Migrated | None:
    """Let the provider of a module migrate weights of an older version.

    Versions are its provider's own: those of module files, and of weights that another provider
    wrote, say nothing.

    Args:
        state: Under the keys they have in the module, as far as settings rename them.
        metadata: torch's versions of its parts, by their paths.
        today: The module's own state dict.
        entry: The module.
        stored: Where the weights are from.

    Returns:
        None where they are of today's version.

    Raises:
        WeightMismatchError: They are of a newer version, or the provider migrates nothing.
        PluginError: The provider's hook fails.
        CheckpointFileError: The file's version is not a number.
    """
    migrator = entry.migrator
    if migrator is None:
        return None
    mark = LayoutVersion.read(metadata, file=stored.file)
    version, provider = mark.version, migrator.origin.provider
    if version == entry.state_version or not _is_one(mark.provider or provider, provider):
        return None
    if version > entry.state_version:
        raise WeightMismatchError(
            f"weights of module {entry.name!r} have version {version}, and {migrator.origin} knows "
            f"versions up to {entry.state_version}: the plugin is older than the file",
            file=stored.file,
            key=entry.name,
            found=version,
            fix=f"pip install -U {provider}",
        )
    if not migrator.has_hook:
        raise _no_hook(version, entry, migrator.origin, stored)
    # A mapped file, and what two keys share, must not be written through to: one copy of all.
    given = copy.deepcopy(dict(state))
    tensors = {key: value for key, value in given.items() if isinstance(value, torch.Tensor)}
    result = migrator(given, from_version=version, to_version=entry.state_version)
    kept = _find_kept(result, tensors, state)
    migration = Migration(from_version=version, to_version=entry.state_version, kept=kept)
    logger.info(
        "weights of module %r: migrated from version %d to %d by %s",
        entry.name,
        version,
        entry.state_version,
        migrator.origin,
    )
    # Parts that the file knows keep its versions: torch's own migrations of them are still due.
    own = getattr(today, "_metadata", {})
    versions = {path: metadata.get(path, facts) for path, facts in own.items()}
    return Migrated(state=result, versions=versions, migration=migration)


def _is_one(distribution: str, other: str) -> bool:
    return normalise(distribution) == normalise(other)


def _find_kept(
    result: Mapping[str, Any], given: Mapping[str, torch.Tensor], before: Mapping[str, Any]
) -> dict[str, str]:
    """Return which tensors were given back as they came, and under which keys they came."""
    keys: dict[int, list[str]] = {}
    for key, tensor in given.items():
        keys.setdefault(id(tensor), []).append(key)
    kept = {}
    for key, value in result.items():
        if not isinstance(value, torch.Tensor):
            continue
        # The very object shows a rename; a copy made by the hook is recognised by its key.
        candidates = keys.get(id(value), [key] if key in given else [])
        old = key if key in candidates else next(iter(candidates), None)
        if old is not None and same_bytes(value, before[old]):
            kept[key] = old
    return kept


def _no_hook(
    version: int, entry: PoolEntry, origin: Origin, stored: StoredModule
) -> WeightMismatchError:
    writer = stored.writer
    # A writer of today's version cannot have been it: it was edited, or took the run over.
    if (
        isinstance(origin, DistributionOrigin)
        and writer is not None
        and _is_one(writer.distribution, origin.distribution)
        and writer.version != origin.version
    ):
        install = f"pip install {writer.distribution}=={writer.version}, which the run had"
    else:
        install = f"install the version of {origin.provider} that wrote them"
    return WeightMismatchError(
        f"weights of module {entry.name!r} have version {version}"
        f"{' (the file names none)' if version == 1 else ''}, and {origin} has version "
        f"{entry.state_version} and no migrate_state",
        file=stored.file,
        key=entry.name,
        found=version,
        fix=f"{install}, or implement migrate_state in {origin.provider}",
    )
