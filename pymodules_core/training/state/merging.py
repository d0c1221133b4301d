"""Joins what was saved with what a person changed since: where nothing changed, what was saved."""

from collections.abc import Mapping
from typing import Any

import torch


def is_same(first: Any, second: Any) -> bool:
    """Compare encoded values; NaN equals NaN, tensors are compared by value."""
    if isinstance(first, torch.Tensor) or isinstance(second, torch.Tensor):
        return (
            isinstance(first, torch.Tensor)
            and isinstance(second, torch.Tensor)
            and first.shape == second.shape
            and torch.equal(first.cpu(), second.cpu())
        )
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(is_same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(is_same, first, second))
    return bool(first == second or (first != first and second != second))  # noqa: PLR0124  NaN


def merge_changes(saved: Any, before: Any, today: Any, changed: list[str], name: str = "") -> Any:
    """Give what was saved, but for values whose start is another today: those are today's.

    Args:
        saved: As it was saved.
        before: What ``saved`` began as.
        today: What it begins as now.
        changed: Receives the names of what is today's.
        name: What this is.
    """
    if is_same(before, today):
        return saved
    kinds = (saved, before, today)
    if all(isinstance(one, Mapping) for one in kinds):
        merged = type(saved)()
        for key, value in saved.items():
            is_known = key in before and key in today
            merged[key] = (
                merge_changes(value, before[key], today[key], changed, str(key))
                if is_known
                else value
            )
        return merged
    if all(isinstance(one, list) and len(one) == len(saved) for one in kinds):
        parts = zip(saved, before, today, strict=True)
        return [merge_changes(*part, changed, name) for part in parts]
    changed.append(name)
    return today
