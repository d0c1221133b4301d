"""Tensors of any dtype as plain numbers, to be compared and described."""

import torch


def as_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """Give a tensor as ``(elements,)`` float64; a complex number is two."""
    plain = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return plain.to(torch.float64).reshape(-1)


def dtype_name(tensor: torch.Tensor) -> str:
    """Give a dtype without the name of the library."""
    return str(tensor.dtype).removeprefix("torch.")
