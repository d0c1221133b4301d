"""One tensor of a file against the module's own: may it be copied, and would it stay what it is.

``load_state_dict`` asks neither: it takes NaN, overflows float64 to float32, and turns 2 into True.
"""

import torch


def kind_fault(value: object, own: object) -> str | None:
    """Return why ``value`` cannot be copied into ``own``, whatever its shape."""
    if not isinstance(value, torch.Tensor) or not isinstance(own, torch.Tensor):
        if isinstance(value, torch.Tensor) or isinstance(own, torch.Tensor):
            return f"{_kind(value)} in the file, {_kind(own)} in the module"
        return None
    if value.is_meta or own.is_meta:
        return f"a meta tensor, without data, in the {'file' if value.is_meta else 'module'}"
    if value.is_nested or own.is_nested:
        return "a nested tensor, which cannot be compared"
    if value.is_quantized != own.is_quantized:
        return f"{value.dtype} in the file, {own.dtype} in the module"
    if value.layout != own.layout:
        return f"{value.layout} in the file, {own.layout} in the module"
    return None


def value_doubt(value: object, own: object, *, is_parameter: bool) -> str | None:
    """Return what is wrong with values that would be copied anyway.

    Args:
        value: From the file; a tensor has the shape of ``own``.
        own: The module's.
        is_parameter: Infinite values count. Buffers hold them on purpose: masks, running minima.

    Returns:
        None where ``value`` arrives as it is. Values that the module holds already, such as the
        -inf of a mask, are not news; sparse and quantised tensors are not looked at.
    """
    if not isinstance(value, torch.Tensor) or not isinstance(own, torch.Tensor):
        return None
    if value.layout is not torch.strided or value.is_quantized or _is_surely_fine(value, own):
        return None
    wide = _widen(value.detach())
    wrong = ~torch.isfinite(wide) if is_parameter else torch.isnan(wide)
    if wrong.any():
        # Only now: the module may be on another device.
        wrong &= torch.isfinite(_widen(own.detach().cpu()))
        if count := int(wrong.sum()):
            kind = "NaN or infinite" if is_parameter else "NaN"
            return f"{count:,} of {value.numel():,} values are {kind}"
    if value.dtype == own.dtype:
        return None
    if value.is_complex() and not own.is_complex():
        return (
            f"{_dtype(value)} in the file loses its imaginary part as {_dtype(own)} in the module"
        )
    changed = _narrowed(value.detach(), own.dtype).nan_to_num() != wide.nan_to_num()
    if count := int(changed.sum()):
        return (
            f"{count:,} of {value.numel():,} values change from {_dtype(value)} in the file to "
            f"{_dtype(own)} in the module"
        )
    return None


def _is_surely_fine(value: torch.Tensor, own: torch.Tensor) -> bool:
    """Check in one pass what holds for nearly all tensors: the same dtype, and a finite sum.

    A value that is not finite leaves no finite sum; where large ones overflow it, one looks closer.
    """
    if value.dtype != own.dtype:
        return False
    if not value.is_floating_point():
        return not value.is_complex()
    # 8-bit floats cannot be summed.
    return value.element_size() > 1 and bool(value.detach().sum().isfinite())


def _narrowed(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return ``value`` as it comes back from ``dtype``."""
    # Back from a complex dtype, torch would warn of imaginary parts that are all zero.
    between = dtype if value.is_complex() else dtype.to_real()
    return _widen(value.to(between).to(value.dtype))


def _widen(value: torch.Tensor) -> torch.Tensor:
    """Make the 8-bit floats comparable, for which torch has next to no operations."""
    return value.float() if value.is_floating_point() and value.element_size() == 1 else value


def _kind(value: object) -> str:
    return "a tensor" if isinstance(value, torch.Tensor) else type(value).__name__


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
