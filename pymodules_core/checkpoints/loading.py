"""How a file's weights fit a module: everything is compared before anything is copied."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from pymodules_core.checkpoints.foreign import find_weights, key_without_wrappers
from pymodules_core.checkpoints.load_advice import suggest_fix
from pymodules_core.checkpoints.state_dicts import refuse_lazy, show_key, unwrap
from pymodules_core.checkpoints.value_checks import kind_fault, value_doubt
from pymodules_core.errors import WeightMismatchError, closest_match, list_words

_MOST_ROWS = 12
_MOST_COMPARED = 1000


@attrs.frozen(kw_only=True)
class LoadReport:
    """How a file's weights fit a module.

    Attributes:
        module_name: The module.
        source: The file.
        loaded: Keys that are copied.
        missing: Keys of the module that the file lacks.
        unexpected: Keys of the file that the module lacks.
        mismatched: Keys whose shapes differ, with both shapes, the file's first.
        renamed: Key in the file to key in the module, where ``rename`` changed it, or where the
            file is of a DDP or compiled module.
        found_under: The key of the file that held the weights; None where they are the file.
        doubtful: Keys that are copied with values that are not finite, or that the module's dtype
            cannot hold, and what is wrong with each.
        coverage: Percent of the module's elements that are copied; 100 for one without any.
    """

    module_name: str
    source: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    renamed: Mapping[str, str]
    found_under: str | None
    doubtful: Mapping[str, str]
    coverage: float

    @property
    def is_complete(self) -> bool:
        """Whether all of the module came from the file, and all of the file went into it."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = [f"{self.module_name}: {len(self.loaded)} tensors loaded, {self.coverage:.0f}%"]
        labels = ("missing", "unexpected", "mismatched", "renamed", "doubtful")
        parts += [f"{len(keys)} {label}" for label in labels if (keys := getattr(self, label))]
        parts += [f"found under {self.found_under!r}"] if self.found_under else []
        return ", ".join(parts)


def match_weights(
    state: "Mapping[str, Any]",
    module: nn.Module,
    *,
    module_name: str,
    source: Path,
    strict: bool = True,
    rename: Mapping[str, str] | None = None,
    skip_mismatched: bool = False,
    is_foreign: bool = True,
    is_exact: bool = False,
) -> "tuple[OrderedDict[str, Any], LoadReport]":
    """Compare a file's weights with a module, touching nothing.

    Args:
        state: Keys to tensors, as read from the file.
        module: The module they are for.
        module_name: Its name.
        source: The file, for messages.
        strict: Missing and unexpected keys are errors, and so are values that are not finite or
            that the module's dtype cannot hold.
        rename: Old prefix to new prefix for keys of the file; the longest match counts.
        skip_mismatched: Keys whose shape differs stay as they are.
        is_foreign: Settings asked for the file, so that the fix names their keys.
        is_exact: A run goes on: it gets the values that it had, whatever they are.

    Returns:
        The part of ``state`` to copy, under the module's keys, and the report.

    Raises:
        WeightMismatchError: With one table of all that does not fit.
        UninitializedModuleError: The module has lazy parameters without a shape.
    """
    refuse_lazy(module, name=module_name)
    inner = unwrap(module)
    own = inner.state_dict()
    found_under = None
    if is_foreign:
        state, found_under = find_weights(state, own, source=source)
    renamed_state, renamed = _rename(state, rename or {}, module_name, source)
    if is_foreign:
        renamed_state = _without_wrappers(renamed_state, own, renamed)
    parameters = {key for key, _ in inner.named_parameters(remove_duplicate=False)}
    fitting: OrderedDict[str, Any] = OrderedDict()
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    doubtful: dict[str, str] = {}
    faults: list[str] = []
    for key, value in renamed_state.items():
        if key not in own:
            continue
        if fault := kind_fault(value, own[key]):
            faults.append(f"{key}: {fault}")
        elif _shape(value) == _shape(own[key]):
            fitting[key] = value
            if not is_exact and (
                doubt := value_doubt(value, own[key], is_parameter=key in parameters)
            ):
                doubtful[key] = doubt
        else:
            mismatched[key] = (_shape(value), _shape(own[key]))
    sizes = {k: v.numel() for k, v in own.items() if isinstance(v, torch.Tensor)}
    total = sum(sizes.values())
    report = LoadReport(
        module_name=module_name,
        source=source,
        loaded=tuple(fitting),
        missing=tuple(key for key in own if key not in renamed_state),
        unexpected=tuple(key for key in renamed_state if key not in own),
        mismatched=mismatched,
        renamed=renamed,
        found_under=found_under,
        doubtful=doubtful,
        coverage=100 * sum(sizes.get(key, 0) for key in fitting) / total if total else 100.0,
    )
    unfit = bool(mismatched) and not skip_mismatched
    if faults or unfit or (strict and (report.missing or report.unexpected or doubtful)):
        rows = faults + _mismatch_rows(report, strict=strict, skip_mismatched=skip_mismatched)
        raise WeightMismatchError(
            "\n  ".join([f"weights do not fit module {module_name!r}:", *_cut(rows)]),
            file=source,
            key=module_name,
            found=report,
            fix=suggest_fix(
                report,
                state,
                strict=strict,
                skip_mismatched=skip_mismatched,
                is_foreign=is_foreign,
            ),
        )
    if hasattr(state, "_metadata"):
        modules = {name for name, _ in inner.named_modules()}
        fitting._metadata = _renamed_metadata(  # type: ignore[attr-defined]  # torch's own
            state._metadata, rename or {}, modules if is_foreign else None
        )
    return fitting, report


def _rename(
    state: Mapping[str, Any], rename: Mapping[str, str], module_name: str, source: Path
) -> tuple[dict[str, Any], dict[str, str]]:
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


def _without_wrappers(
    state: Mapping[str, Any], own: Mapping[str, Any], renamed: dict[str, str]
) -> dict[str, Any]:
    """Take what DDP and torch.compile added off the keys, unless the module has them so."""
    before = {new: old for old, new in renamed.items()}
    result: dict[str, Any] = {}
    for key, value in state.items():
        new_key = key_without_wrappers(key, own)
        if new_key in state and new_key != key:
            new_key = key  # the file has that one, too
        elif new_key != key:
            renamed[before.get(key, key)] = new_key
        result[new_key] = value
    return result


def _renamed_metadata(
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


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _mismatch_rows(report: LoadReport, *, strict: bool, skip_mismatched: bool) -> list[str]:
    rows: list[str] = []
    if not skip_mismatched:
        rows += [
            f"{key}: shape {list(found)} in the file, {list(expected)} in the module"
            for key, (found, expected) in report.mismatched.items()
        ]
    if strict:
        # Comparing every name with every other takes minutes for a large model.
        compared = report.unexpected[:_MOST_COMPARED]
        for number, key in enumerate(report.missing):
            near = closest_match(key, compared) if number < _MOST_ROWS else None
            rows.append(
                f"{key}: missing in the file" + (f" (it has {show_key(near)})" if near else "")
            )
        rows += [f"{show_key(key)}: not in the module" for key in report.unexpected]
        rows += [f"{key}: {doubt}" for key, doubt in report.doubtful.items()]
    return rows


def _cut(rows: list[str]) -> list[str]:
    if len(rows) <= _MOST_ROWS:
        return rows
    return [*rows[:_MOST_ROWS], f"… and {len(rows) - _MOST_ROWS} more"]
