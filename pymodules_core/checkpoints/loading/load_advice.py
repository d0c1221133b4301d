"""What to do about weights that do not fit: recognises prefixes and nesting by the keys."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pymodules_core.checkpoints.file_format.state_dict import show_key

if TYPE_CHECKING:
    from pymodules_core.checkpoints.loading.match import LoadReport


def suggest_fix(
    report: "LoadReport",
    state: Mapping[str, Any],
    *,
    strict: bool,
    skip_mismatched: bool,
    is_foreign: bool,
) -> str:
    """Give the fix for a load that was refused.

    Args:
        report: What does not fit.
        state: What the file holds.
        strict: As it was for the load.
        skip_mismatched: As it was for the load.
        is_foreign: Settings asked for the file; their keys are named. Otherwise it is a pool of
            the module's own run.
    """
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


def _fix_for_nesting(report: "LoadReport", state: Mapping[str, Any]) -> str | None:
    """Recognise several modules in one file: ``{"generator": ..., "discriminator": ...}``."""
    for key in report.unexpected:
        inner = state.get(key)
        if isinstance(inner, Mapping) and any(
            isinstance(inner_key, str) and inner_key.endswith(report.missing) for inner_key in inner
        ):
            return f"the weights are one level down: torch.save(content[{show_key(key)!r}], file)"
    return None


def _fix_for_prefix(report: "LoadReport") -> str | None:
    """Recognise a module that was saved as a part of another."""
    unexpected = set(report.unexpected)
    first = report.missing[0] if report.missing else ""
    for key in report.unexpected if first else ():
        prefix = key.removesuffix(first)
        if prefix != key and all(prefix + missing in unexpected for missing in report.missing):
            return f"rename = {{{prefix!r}: ''}}"
    return None


def _name_settings(report: "LoadReport", *, strict: bool, misshapen: bool) -> str:
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
