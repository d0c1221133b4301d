"""Weights into modules: compare everything first, then copy all or nothing."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from pymodules_core.checkpoints.state_dicts import refuse_lazy, unwrap
from pymodules_core.errors import WeightMismatchError, closest_match

_MOST_ROWS = 12


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
        renamed: Key in the file to key in the module, where ``rename`` changed it.
        coverage: Percent of the module's elements that are copied; 100 for one without any.
    """

    module_name: str
    source: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    renamed: Mapping[str, str]
    coverage: float

    def __str__(self) -> str:
        parts = [f"{self.module_name}: {len(self.loaded)} tensors loaded, {self.coverage:.0f}%"]
        labels = ("missing", "unexpected", "mismatched", "renamed")
        parts += [f"{len(keys)} {label}" for label in labels if (keys := getattr(self, label))]
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
) -> "tuple[OrderedDict[str, Any], LoadReport]":
    """Compare a file's weights with a module, touching nothing.

    Args:
        state: Keys to tensors, as read from the file.
        module: The module they are for.
        module_name: Its name.
        source: The file, for messages.
        strict: Missing and unexpected keys are errors.
        rename: Old prefix to new prefix for keys of the file; the longest match counts.
        skip_mismatched: Keys whose shape differs stay as they are.

    Returns:
        The part of ``state`` to copy, under the module's keys, and the report.

    Raises:
        WeightMismatchError: With one table of all that does not fit.
        UninitializedModuleError: The module has lazy parameters without a shape.
    """
    refuse_lazy(module, name=module_name)
    renamed_state, renamed = _rename(state, rename or {}, module_name, source)
    own = unwrap(module).state_dict()
    fitting: OrderedDict[str, Any] = OrderedDict()
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    faults: list[str] = []
    for key, value in renamed_state.items():
        if key not in own:
            continue
        if fault := _kind_fault(value, own[key]):
            faults.append(f"{key}: {fault}")
        elif _shape(value) == _shape(own[key]):
            fitting[key] = value
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
        coverage=100 * sum(sizes.get(key, 0) for key in fitting) / total if total else 100.0,
    )
    unfit = bool(mismatched) and not skip_mismatched
    if faults or unfit or (strict and (report.missing or report.unexpected)):
        raise _mismatch_error(report, state, faults, skip_mismatched=skip_mismatched)
    if hasattr(state, "_metadata"):
        fitting._metadata = state._metadata  # type: ignore[attr-defined]  # torch's own attribute
    return fitting, report


def apply_weights(module: nn.Module, state: "Mapping[str, Any]") -> None:
    """Copy matched weights into a module; on an error the module is as it was before.

    ``load_state_dict`` runs, so that a module's own hooks do, and it copies key by key: hence the
    snapshot.
    """
    inner = unwrap(module)
    before = {
        key: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for key, value in inner.state_dict().items()
    }
    try:
        inner.load_state_dict(state, strict=False)
    except BaseException:
        inner.load_state_dict(before, strict=False)
        raise


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
                f"module {module_name!r}: rename gives {new_key!r} twice", file=source, key=new_key
            )
        result[new_key] = value
    for prefix in rename:
        if prefix not in used:
            raise WeightMismatchError(
                f"module {module_name!r}: rename: no key starts with {prefix!r}",
                file=source,
                key="rename",
                found=prefix,
                closest=closest_match(prefix, state),
            )
    return result, renamed


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _kind_fault(value: object, own: object) -> str | None:
    """Say why ``value`` cannot be copied into ``own``, whatever its shape."""
    if isinstance(value, torch.Tensor) != isinstance(own, torch.Tensor):
        return f"{_kind(value)} in the file, {_kind(own)} in the module"
    if isinstance(value, torch.Tensor) and isinstance(own, torch.Tensor):
        if value.is_meta:
            return "a meta tensor, without data, in the file"
        if value.layout != own.layout:
            return f"{value.layout} in the file, {own.layout} in the module"
    return None


def _kind(value: object) -> str:
    return "a tensor" if isinstance(value, torch.Tensor) else type(value).__name__


def _mismatch_error(
    report: LoadReport, state: Mapping[str, Any], faults: list[str], *, skip_mismatched: bool
) -> WeightMismatchError:
    rows = [f"  {fault}" for fault in faults] + [
        f"  {key}: shape {list(found)} in the file, {list(expected)} in the module"
        for key, (found, expected) in ({} if skip_mismatched else report.mismatched).items()
    ]
    for key in report.missing:
        near = closest_match(key, report.unexpected)
        rows.append(f"  {key}: missing in the file" + (f" (it has {near})" if near else ""))
    rows += [f"  {key}: not in the module" for key in report.unexpected]
    if len(rows) > _MOST_ROWS:
        rows = [*rows[:_MOST_ROWS], f"  … and {len(rows) - _MOST_ROWS} more"]
    return WeightMismatchError(
        f"weights do not fit module {report.module_name!r}:\n" + "\n".join(rows),
        file=report.source,
        key=report.module_name,
        found=report,
        fix=_fix_for_nesting(report, state)
        or _fix_for_prefix(report)
        or "rename = {old prefix: new prefix}, strict = False for missing and unexpected keys, "
        "skip_mismatched = True for shapes",
    )


def _fix_for_nesting(report: LoadReport, state: Mapping[str, Any]) -> str | None:
    """Recognise ``{"state_dict": ..., "epoch": ...}``."""
    for key in report.unexpected:
        inner = state.get(key)
        if isinstance(inner, Mapping) and set(report.missing) & set(inner):
            return f"the weights are one level down: torch.save(content[{key!r}], file)"
    return None


def _fix_for_prefix(report: LoadReport) -> str | None:
    """Recognise ``module.`` of DDP, ``_orig_mod.`` of ``torch.compile``, or any other prefix."""
    unexpected = set(report.unexpected)
    first = report.missing[0] if report.missing else ""
    for key in report.unexpected if first else ():
        prefix = key.removesuffix(first)
        if prefix != key and all(prefix + missing in unexpected for missing in report.missing):
            return f"rename = {{{prefix!r}: ''}}"
    return None
