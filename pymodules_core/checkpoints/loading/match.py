"""How a file's weights fit a module: everything is compared before anything is copied."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from pymodules_core.checkpoints.file_format.state_dict import refuse_lazy, show_key, unwrap
from pymodules_core.checkpoints.loading.foreign import find_weights
from pymodules_core.checkpoints.loading.keys import rename_keys, rename_metadata, strip_wrappers
from pymodules_core.checkpoints.loading.load_advice import suggest_fix
from pymodules_core.checkpoints.loading.migrate import Migrated
from pymodules_core.checkpoints.loading.value_checks import kind_fault, value_doubt
from pymodules_core.errors import WeightMismatchError, closest_match
from pymodules_core.module_pool import Migration

# A state, torch's versions of its parts, and the module's own state dict; None for "as it is".
Migrate = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Migrated | None]

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
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
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
        is_exact: A run goes on: it gets the values that it had, whatever they are.
        migrate: Brings what ``rename`` gave into today's layout, before it is compared.

    Returns:
        The part of ``state`` to copy, under the module's keys, and the report.

    Raises:
        WeightMismatchError: With one table of all that does not fit.
        UninitializedModuleError: The module has lazy parameters without a shape.
    """
    refuse_lazy(module, name=module_name)
    inner = unwrap(module)
    own = inner.state_dict()
    found_under, unwrapped = None, 0
    if is_foreign:
        state, found_under = find_weights(state, own, source=source)
    metadata = None
    if hasattr(state, "_metadata"):
        paths = {path for path, _ in inner.named_modules()} if is_foreign else None
        metadata = rename_metadata(state._metadata, rename or {}, paths)
    renamed_state, renamed = rename_keys(state, rename or {}, module_name, source)
    migration = None
    if (migrated := migrate(renamed_state, metadata or {}, own)) is not None:
        renamed_state, metadata = migrated.state, migrated.versions
        migration = migrated.migration
    if is_foreign:
        renamed_state, unwrapped = strip_wrappers(renamed_state, own, renamed)
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
        unwrapped=unwrapped,
        found_under=found_under,
        doubtful=doubtful,
        coverage=100 * sum(sizes.get(key, 0) for key in fitting) / total if total else 100.0,
        migration=migration,
    )
    unfit = bool(mismatched) and not skip_mismatched
    if faults or unfit or (strict and (report.missing or report.unexpected or doubtful)):
        rows = faults + _mismatch_rows(report, strict=strict, skip_mismatched=skip_mismatched)
        raise WeightMismatchError(
            "\n  ".join([f"weights do not fit {_name(report)}:", *_cut(rows)]),
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
    if metadata is not None:
        fitting._metadata = metadata  # type: ignore[attr-defined]  # torch's own attribute
    return fitting, report


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
