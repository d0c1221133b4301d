"""What the tensors of a state dict are like, in a few numbers each."""

from collections.abc import Mapping
from typing import Any

import attrs
import torch


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


def as_float64(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as ``(elements,)`` float64; a complex number is two."""
    plain = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return plain.to(torch.float64).reshape(-1)


def dtype_name(tensor: torch.Tensor) -> str:
    """Return a dtype without the name of the library."""
    return str(tensor.dtype).removeprefix("torch.")


def _describe(key: str, tensor: torch.Tensor) -> TensorStatistics:
    numbers = as_float64(tensor)
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
