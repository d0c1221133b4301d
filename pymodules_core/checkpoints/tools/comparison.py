"""How much two states of a module differ."""

import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from pymodules_core.checkpoints.loading.pool_reader import StoredModule
from pymodules_core.checkpoints.tools.statistics import as_float64, dtype_name


@attrs.frozen(kw_only=True)
class Difference:
    """How a tensor, or all tensors of a module, changed from ``a`` to ``b``.

    Attributes:
        name: The key, or the module's name.
        relative: ``|b - a| / |a|`` with Euclidean norms; infinite where ``a`` is zero and ``b`` is
            not.
        cosine: Of the angle between both as vectors; 1 where both are zero, 0 where one is.
        largest: The largest change of one element.
        note: What keeps both from being compared, None where they were.
    """

    name: str
    relative: float = math.nan
    cosine: float = math.nan
    largest: float = math.nan
    note: str | None = None

    @property
    def is_same(self) -> bool:
        """Whether nothing changed."""
        return self.note is None and self.largest == 0


@attrs.frozen(kw_only=True)
class ModuleDifference:
    """How a module changed.

    Attributes:
        total: Over all floating-point and complex tensors that could be compared; a counter among
            them would outweigh all weights.
        keys: One entry a key, in the order of ``a``, those of ``b`` alone at the end.
    """

    total: Difference
    keys: list[Difference]

    @property
    def is_same(self) -> bool:
        """Whether nothing changed."""
        return all(key.is_same for key in self.keys)


@attrs.define
class _Sums:
    """What norms and angles are made of, summed in float64."""

    change: float = 0.0
    first: float = 0.0
    second: float = 0.0
    product: float = 0.0
    largest: float = 0.0

    def add(self, first: torch.Tensor, second: torch.Tensor) -> None:
        a, b = as_float64(first), as_float64(second)
        # Masks hold infinities: where they stay what they are, nothing changed.
        is_same = (a == b) & ~a.isfinite()
        a, b = a.masked_fill(is_same, 0.0), b.masked_fill(is_same, 0.0)
        change = b - a
        self.change += float(change.square().sum())
        self.first += float(a.square().sum())
        self.second += float(b.square().sum())
        self.product += float(a @ b)
        if change.numel():
            self.largest = max(self.largest, float(change.abs().max()), key=_nan_first)

    def join(self, other: "_Sums") -> None:
        self.change += other.change
        self.first += other.first
        self.second += other.second
        self.product += other.product
        self.largest = max(self.largest, other.largest, key=_nan_first)

    def as_difference(self, name: str) -> Difference:
        if self.first:
            relative = math.sqrt(self.change / self.first)
        else:
            relative = math.inf if self.change else 0.0
        norms = math.sqrt(self.first * self.second)
        cosine = self.product / norms if norms else float(self.first == self.second)
        return Difference(name=name, relative=relative, cosine=cosine, largest=self.largest)


def compare_modules(name: str, first: StoredModule, second: StoredModule) -> ModuleDifference:
    """Compare two states of one module key by key.

    Args:
        name: The module.
        first: What it was.
        second: What it became.
    """
    total = _Sums()
    keys = [_compare(key, first.state, second.state, total) for key in first.state]
    keys += [
        Difference(name=key, note="only in the second")
        for key in second.state
        if key not in first.state
    ]
    return ModuleDifference(total=total.as_difference(name), keys=keys)


def _compare(
    key: str, first: Mapping[str, Any], second: Mapping[str, Any], total: _Sums
) -> Difference:
    if key not in second:
        return Difference(name=key, note="only in the first")
    a, b = first[key], second[key]
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        is_same = type(a) is type(b) and repr(a) == repr(b)
        if is_same:
            return Difference(name=key, relative=0.0, cosine=1.0, largest=0.0)
        return Difference(name=key, note="no tensor, and changed")
    if a.shape != b.shape:
        return Difference(name=key, note=f"shape {list(a.shape)} became {list(b.shape)}")
    dtypes = f"{dtype_name(a)} became {dtype_name(b)}"
    if a.is_complex() != b.is_complex():
        return Difference(name=key, note=dtypes)
    sums = _Sums()
    sums.add(a, b)
    if a.is_floating_point() or a.is_complex():
        total.join(sums)
    if a.dtype != b.dtype:
        return Difference(name=key, note=dtypes)
    return sums.as_difference(key)


def _nan_first(value: float) -> float:
    return math.inf if math.isnan(value) else value
