"""What the tensors of a state dict are like, in a few numbers each."""

from collections.abc import Mapping
from typing import Any

import attrs
import torch

from pymodules_core.checkpoints.tools.numbers import as_numbers, dtype_name


@attrs.frozen(kw_only=True)
class TensorStatistics:
    """One tensor.

    Attributes:
        key: Its key.
        shape: Its shape.
        dtype: Such as ``float32``.
        elements: How many.
        size_bytes: Of its elements.
        mean: Of the finite elements; a complex one counts as two. None where there are none.
        std: Their standard deviation, over all and not over a sample.
        least: The smallest of them.
        most: The largest of them.
        not_finite: How many elements are NaN or infinite.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    elements: int
    size_bytes: int
    mean: float | None
    std: float | None
    least: float | None
    most: float | None
    not_finite: int


def tensor_statistics(state: Mapping[str, Any]) -> list[TensorStatistics]:
    """Describe the tensors of a state dict, in its order; other values are left out."""
    return [
        _describe(key, value) for key, value in state.items() if isinstance(value, torch.Tensor)
    ]


def _describe(key: str, tensor: torch.Tensor) -> TensorStatistics:
    numbers = as_numbers(tensor)
    finite = numbers[numbers.isfinite()]
    has_some = finite.numel() > 0
    return TensorStatistics(
        key=key,
        shape=tuple(tensor.shape),
        dtype=dtype_name(tensor),
        elements=tensor.numel(),
        size_bytes=tensor.numel() * tensor.element_size(),
        mean=float(finite.mean()) if has_some else None,
        std=float(finite.std(correction=0)) if has_some else None,
        least=float(finite.min()) if has_some else None,
        most=float(finite.max()) if has_some else None,
        not_finite=numbers.numel() - finite.numel(),
    )
