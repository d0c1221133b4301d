"""What a file calls the weights of a module, and what the module calls them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from pymodules_core.checkpoints.file_format.content_checks import check_state
from pymodules_core.checkpoints.file_format.state_dict import show_key
from pymodules_core.checkpoints.loading.migrate import Migrated
from pymodules_core.errors import WeightMismatchError, closest_match, list_words
from pymodules_core.module_pool import Migration

_MOST_COMPARED = 1000
# What DDP and torch.compile put before the keys of the module they wrap, outermost first.
_WRAPPERS = ("module", "_orig_mod")


# A state, torch's versions of its modules, and the module's own state dict; None for "as it is".
Migrate = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Migrated | None]


@attrs.frozen(kw_only=True)
class OwnKeys:
    """A file's weights under the keys of the module they are for.

    Attributes:
        weights: As the file has them.
        state: Under the module's keys.
        metadata: torch's versions of its modules, by their paths; None where the file has none.
        renamed: Key in the file to key in the module, of each that changed.
        unwrapped: How many of those are of a DDP or compiled module.
        found_under: The key of the file that held the weights; None where they are the file.
        migration: How weights of an older version came into today's layout.
    """

    weights: Mapping[str, Any]
    state: Mapping[str, Any]
    metadata: Mapping[str, Any] | None
    renamed: Mapping[str, str]
    unwrapped: int
    found_under: str | None
    migration: Migration | None


def under_own_keys(
    state: Mapping[str, Any],
    module: nn.Module,
    own: Mapping[str, Any],
    *,
    module_name: str,
    source: Path,
    rename: Mapping[str, str],
    is_foreign: bool,
    migrate: Migrate,
) -> OwnKeys:
    """Find the weights of a module in a file, and bring them under the module's own keys.

    Args:
        state: As for ``match_weights``, like all that follow.
        module: The module, not wrapped.
        own: Its state dict.
        module_name: Its name.
        source: The file.
        rename: Old prefix to new prefix.
        is_foreign: Weights may be one level down, or of a wrapped module.
        migrate: Brings what ``rename`` gave into today's layout.

    Raises:
        WeightMismatchError: Two keys become one, or no key starts with a prefix of ``rename``.
        CheckpointFileError: What is one level down is not a state dict.
    """
    found_under, unwrapped, metadata, migration = None, 0, None, None
    if is_foreign:
        state, found_under = _find_weights(state, own, source=source)
    if hasattr(state, "_metadata"):
        paths = {path for path, _ in module.named_modules()} if is_foreign else None
        metadata = _rename_metadata(state._metadata, rename, paths)
    weights = state
    state, renamed = _rename_keys(state, rename, module_name, source)
    if (migrated := migrate(state, metadata or {}, own)) is not None:
        state, metadata, migration = migrated.state, migrated.versions, migrated.migration
    if is_foreign:
        state, unwrapped = _strip_wrappers(state, own, renamed)
    return OwnKeys(
        weights=weights,
        state=state,
        metadata=metadata,
        renamed=renamed,
        unwrapped=unwrapped,
        found_under=found_under,
        migration=migration,
    )


def _find_weights(
    state: Mapping[str, Any], own: Collection[str], *, source: Path
) -> tuple[Mapping[str, Any], str | None]:
    """Look one level down, as in ``{"state_dict": ..., "epoch": ...}``.

    Args:
        state: What a file holds.
        own: The module's keys.
        source: The file, for messages.

    Returns:
        The weights, and the key they are under; ``state`` and None where none or several fit.

    Raises:
        CheckpointFileError: They are not a state dict.
    """
    own = set(own)
    if not own.isdisjoint(state):
        return state, None
    fitting = [
        key
        for key, value in state.items()
        if isinstance(value, Mapping) and any(_is_for(inner, own) for inner in value)
    ]
    if len(fitting) != 1:
        return state, None
    return check_state(source, state[fitting[0]]), fitting[0]


def _rename_keys(
    state: Mapping[str, Any], rename: Mapping[str, str], module_name: str, source: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace prefixes of keys.

    Args:
        state: Keys to values.
        rename: Old prefix to new prefix; the longest match counts.
        module_name: The module, for messages.
        source: The file, for messages.

    Returns:
        The state under its new keys, and old key to new key of each that matched.

    Raises:
        WeightMismatchError: Two keys become one, or no key starts with a prefix.
    """
    result: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    by_length = sorted(rename, key=len, reverse=True)
    used: set[str] = set()
    for key, value in state.items():
        prefix = next((p for p in by_length if key.startswith(p)), None)
        new_key = key if prefix is None else rename[prefix] + key.removeprefix(prefix)
        if prefix is not None:
            used.add(prefix)
            renamed[key] = new_key
        if new_key in result:
            raise WeightMismatchError(
                f"module {module_name!r}: rename gives {show_key(new_key)} twice",
                file=source,
                key="rename",
                found=new_key,
                fix="rename fewer prefixes: each key of the file needs a name of its own",
            )
        result[new_key] = value
    for prefix in rename:
        if prefix not in used:
            raise WeightMismatchError(
                f"module {module_name!r}: rename: no key starts with {prefix!r}; there are: "
                f"{list_words(map(show_key, state), most=6)}",
                file=source,
                key="rename",
                found=prefix,
                closest=closest_match(prefix, _dotted_prefixes(state)),
                fix="write how keys of the file start, on the left of the rename",
            )
    return result, renamed


def _strip_wrappers(
    state: Mapping[str, Any], own: Mapping[str, Any], renamed: dict[str, str]
) -> tuple[dict[str, Any], int]:
    """Take what DDP and torch.compile added off the keys, unless the module has them so.

    Args:
        state: Keys to values.
        own: The module's own state dict.
        renamed: Old key to new key; what is stripped is added.

    Returns:
        The state under the module's own keys, and how many were changed.
    """
    before = {new: old for old, new in renamed.items()}
    result: dict[str, Any] = {}
    count = 0
    for key, value in state.items():
        new_key = _without_wrappers(key, own)
        if new_key in state and new_key != key:
            new_key = key  # the file has that one, too
        elif new_key != key:
            renamed[before.get(key, key)] = new_key
            count += 1
        result[new_key] = value
    return result, count


def _rename_metadata(
    metadata: Mapping[str, Any], rename: Mapping[str, str], modules: Collection[str] | None
) -> dict[str, Any]:
    """Return metadata, which says the version of each module, under the module's own paths.

    Args:
        metadata: As the file has it, by the paths of modules there.
        rename: As for keys.
        modules: Paths of the module's own parts, which wrappers are taken off for; None for a file
            of our own.
    """
    by_length = sorted(rename, key=len, reverse=True)
    result: dict[str, Any] = {}
    # The longest last: what is inside a wrapper says more than the wrapper.
    for path in sorted(metadata, key=len):
        dotted = f"{path}." if path else ""
        prefix = next((p for p in by_length if dotted.startswith(p)), None)
        if prefix is not None:
            dotted = rename[prefix] + dotted.removeprefix(prefix)
        new_path = dotted.removesuffix(".")
        if modules is not None:
            new_path = _without_wrappers(new_path, modules)
        result[new_path] = metadata[path]
    return result


def _without_wrappers(key: str, own: Collection[str]) -> str:
    """Return the module's own key for one that a wrapper made; ``key`` itself where there is none.

    Here a file's text has to do. On saving, wrappers are known by their type.
    """
    if key in own:
        return key
    parts = key.split(".")
    for wrappers in (_WRAPPERS[1:], _WRAPPERS[:1], _WRAPPERS):
        shorter = ".".join(part for part in parts if part not in wrappers)
        if shorter in own:
            return shorter
    return key


def _is_for(key: object, own: Collection[str]) -> bool:
    return isinstance(key, str) and _without_wrappers(key, own) in own


def _dotted_prefixes(keys: Iterable[str]) -> list[str]:
    return sorted({f"{key.rpartition('.')[0]}." for key in keys if "." in key})[:_MOST_COMPARED]
