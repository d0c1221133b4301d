"""What a file calls the weights of a module, and what the module calls them."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pymodules_core.checkpoints.file_format.state_dict import show_key
from pymodules_core.checkpoints.loading.foreign import key_without_wrappers
from pymodules_core.errors import WeightMismatchError, closest_match, list_words

_MOST_COMPARED = 1000


def rename_keys(
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


def strip_wrappers(
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
        new_key = key_without_wrappers(key, own)
        if new_key in state and new_key != key:
            new_key = key  # the file has that one, too
        elif new_key != key:
            renamed[before.get(key, key)] = new_key
            count += 1
        result[new_key] = value
    return result, count


def rename_metadata(
    metadata: Mapping[str, Any], rename: Mapping[str, str], modules: Collection[str] | None
) -> dict[str, Any]:
    """Give metadata, which says the version of each module, under the module's own paths.

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
            new_path = key_without_wrappers(new_path, modules)
        result[new_path] = metadata[path]
    return result


def _dotted_prefixes(keys: Iterable[str]) -> list[str]:
    return sorted({f"{key.rpartition('.')[0]}." for key in keys if "." in key})[:_MOST_COMPARED]
