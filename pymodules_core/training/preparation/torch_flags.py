"""Flags of torch that decide what a run computes, as ``task.py`` and module files set them."""

from operator import attrgetter

import torch

_BACKEND_FLAGS = (
    *("cudnn.enabled", "cudnn.benchmark", "cudnn.deterministic", "cudnn.allow_tf32"),
    "cuda.matmul.allow_tf32",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
)
_SETTERS = {
    "default_dtype": "torch.set_default_dtype",
    "deterministic_algorithms": "torch.use_deterministic_algorithms",
    "float32_matmul_precision": "torch.set_float32_matmul_precision",
}


def torch_flags() -> dict[str, str | bool]:
    """Return the flags as they are now, by name, as JSON holds them."""
    return {
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "deterministic_algorithms": ("off", "warn", "on")[torch.get_deterministic_debug_mode()],
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        **{name: _backend_flag(name) for name in _BACKEND_FLAGS},
    }


def setter_of(flag: str) -> str:
    """Return what sets a flag, for a person to search for."""
    return _SETTERS.get(flag, f"torch.backends.{flag}")


def _backend_flag(name: str) -> str | bool:
    read = attrgetter(name)
    try:
        value: str | bool = read(torch.backends)
    except RuntimeError:  # set by `fp32_precision`, after which torch refuses to say it the old way
        value = attrgetter(f"{name.removesuffix('allow_tf32')}fp32_precision")(torch.backends)
    return value
