"""How a file's weights fit a module: everything is compared before anything is copied."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from pymodules_core.checkpoints.file_format.state_dict import check_initialized, show_key, unwrap
from pymodules_core.checkpoints.loading.keys import Migrate, under_own_keys
from pymodules_core.checkpoints.loading.value_checks import kind_fault, value_doubt
from pymodules_core.errors import WeightMismatchError, closest_match
from pymodules_core.module_pool import Migration

_Shapes = tuple[tuple[int, ...], tuple[int, ...]]

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
        unwrapped: How many of those are of a DDP or compiled module.
        found_under: The key of the file that held the weights; None where they are the file.
        doubtful: Keys that are copied with values that are not finite, or that the module's dtype
            cannot hold, and what is wrong with each.
        coverage: Percent of the module's elements that are copied; 100 for one without any.
        migration: How weights of an older version came into today's layout; None for today's.
    """

    module_name: str
    source: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, _Shapes]
    renamed: Mapping[str, str]
    unwrapped: int
    found_under: str | None
    doubtful: Mapping[str, str]
    coverage: float
    migration: Migration | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all of the module came from the file, and all of the file went into it."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = [f"{self.module_name}: {len(self.loaded)} tensors loaded, {self.coverage:.0f}%"]
        labels = ("missing", "unexpected", "mismatched", "renamed", "doubtful")
        parts += [f"{len(keys)} {label}" for label in labels if (keys := getattr(self, label))]
        parts += ["saved from inside DDP or torch.compile"] if self.unwrapped else []
        parts += [f"found under {self.found_under!r}"] if self.found_under else []
        if self.migration is not None:
            parts.append(f"migrated from version {self.migration.from_version}")
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
    migrate: Migrate = lambda *_: None,
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
        is_exact: A run is resumed: it gets the values that it had, whatever they are.
        migrate: Brings what ``rename`` gave into today's layout, before it is compared.

    Returns:
        The part of ``state`` to copy, under the module's keys, and the report.

    Raises:
        WeightMismatchError: With one table of all that does not fit.
        UninitializedModuleError: The module has lazy parameters without a shape.
    """
    check_initialized(module, name=module_name)
    inner = unwrap(module)
    own = inner.state_dict()
    known = under_own_keys(
        state,
        inner,
        own,
        module_name=module_name,
        source=source,
        rename=rename or {},
        is_foreign=is_foreign,
        migrate=migrate,
    )
    fitting, mismatched, faults = _sort_by_shape(known.state, own)
    parameters = {key for key, _ in inner.named_parameters(remove_duplicate=False)}
    doubts = {
        key: value_doubt(value, own[key], is_parameter=key in parameters)
        for key, value in ({} if is_exact else fitting).items()
    }
    report = LoadReport(
        module_name=module_name,
        source=source,
        loaded=tuple(fitting),
        missing=tuple(key for key in own if key not in known.state),
        unexpected=tuple(key for key in known.state if key not in own),
        mismatched=mismatched,
        renamed=known.renamed,
        unwrapped=known.unwrapped,
        found_under=known.found_under,
        doubtful={key: doubt for key, doubt in doubts.items() if doubt},
        coverage=_coverage(own, fitting),
        migration=known.migration,
    )
    rows = faults + _rows(report, strict=strict, skip_mismatched=skip_mismatched)
    if rows:
        raise WeightMismatchError(
            "\n  ".join([f"weights do not fit {_name(report)}:", *_cut(rows)]),
            file=source,
            key=module_name,
            found=report,
            fix=_suggest_fix(
                report,
                known.weights,
                strict=strict,
                skip_mismatched=skip_mismatched,
                is_foreign=is_foreign,
            ),
        )
    if known.metadata is not None:
        fitting._metadata = known.metadata  # type: ignore[attr-defined]  # torch's own attribute
    return fitting, report


def _sort_by_shape(
    state: Mapping[str, Any], own: Mapping[str, Any]
) -> "tuple[OrderedDict[str, Any], dict[str, _Shapes], list[str]]":
    """Return what fits, the shapes of what does not, and what cannot be copied at any shape."""
    fitting: OrderedDict[str, Any] = OrderedDict()
    mismatched: dict[str, _Shapes] = {}
    faults: list[str] = []
    for key, value in state.items():
        if key not in own:
            continue
        if fault := kind_fault(value, own[key]):
            faults.append(f"{key}: {fault}")
        elif _shape(value) == _shape(own[key]):
            fitting[key] = value
        else:
            mismatched[key] = (_shape(value), _shape(own[key]))
    return fitting, mismatched, faults


def _coverage(own: Mapping[str, Any], fitting: Mapping[str, Any]) -> float:
    sizes = {key: one.numel() for key, one in own.items() if isinstance(one, torch.Tensor)}
    total = sum(sizes.values())
    return 100 * sum(sizes.get(key, 0) for key in fitting) / total if total else 100.0


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _rows(report: LoadReport, *, strict: bool, skip_mismatched: bool) -> list[str]:
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


def _name(report: LoadReport) -> str:
    name = f"module {report.module_name!r}"
    if (done := report.migration) is None:
        return name
    return (
        f"{name}, although its plugin migrated them from version {done.from_version} to "
        f"{done.to_version}"
    )


def _cut(rows: list[str]) -> list[str]:
    if len(rows) <= _MOST_ROWS:
        return rows
    return [*rows[:_MOST_ROWS], f"… and {len(rows) - _MOST_ROWS} more"]


def _suggest_fix(
    report: LoadReport,
    state: Mapping[str, Any],
    *,
    strict: bool,
    skip_mismatched: bool,
    is_foreign: bool,
) -> str:
    misshapen = bool(report.mismatched) and not skip_mismatched
    if report.migration is not None:
        return (
            "report it to the plugin: its migrate_state has to give the keys and shapes of version "
            f"{report.migration.to_version}"
        )
    if not is_foreign:
        fix = "build the module as it was when it was saved"
        return fix if misshapen or not strict else f"{fix}, or load(..., strict=False)"
    return (
        _fix_for_nesting(report, state)
        or _fix_for_prefix(report)
        or _name_settings(report, strict=strict, misshapen=misshapen)
    )


def _fix_for_nesting(report: LoadReport, state: Mapping[str, Any]) -> str | None:
    """Recognise several modules in one file: ``{"generator": ..., "discriminator": ...}``."""
    for key in report.unexpected:
        inner = state.get(key)
        if isinstance(inner, Mapping) and any(
            isinstance(inner_key, str) and inner_key.endswith(report.missing) for inner_key in inner
        ):
            return f"the weights are one level down: torch.save(content[{show_key(key)!r}], file)"
    return None


def _fix_for_prefix(report: LoadReport) -> str | None:
    """Recognise a module that was saved as a part of another."""
    unexpected = set(report.unexpected)
    first = report.missing[0] if report.missing else ""
    for key in report.unexpected if first else ():
        prefix = key.removesuffix(first)
        if prefix != key and all(prefix + missing in unexpected for missing in report.missing):
            return f"rename = {{{prefix!r}: ''}}"
    return None


def _name_settings(report: LoadReport, *, strict: bool, misshapen: bool) -> str:
    if not (report.loaded or report.mismatched):
        return "take the file of a module of this kind, or rename = {old prefix: new prefix}"
    fixes = []
    if strict and report.missing and report.unexpected:
        fixes.append("rename = {old prefix: new prefix}")
    if strict and (report.missing or report.unexpected):
        fixes.append("strict = False for missing and unexpected keys")
    if misshapen:
        fixes.append("skip_mismatched = True for shapes")
    if strict and report.doubtful:
        fixes.append("strict = False to take the values as they are")
    return ", ".join(fixes) or "take the file of a module of this kind"
