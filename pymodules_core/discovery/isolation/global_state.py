"""Puts back what a package changes around it: the working directory, and settings of torch.

These decide the numbers of every module that is built or trained after it, in an order nobody
chose. Files of an experiment own the process, and are not guarded. No torch is imported here: as
long as nobody has imported it, its settings are as they will be at first.
"""

import logging
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger("pymodules_core")

# What decides numbers: name to how torch reads it, how it sets it, and what it is when torch is
# imported, where that is a constant.
_TORCH = {
    "default dtype": ("get_default_dtype", "set_default_dtype", None),
    "grad mode": ("is_grad_enabled", "set_grad_enabled", True),
    "number of torch threads": ("get_num_threads", "set_num_threads", None),
    "deterministic mode": ("get_deterministic_debug_mode", "set_deterministic_debug_mode", 0),
    "precision of float32 products": (
        "get_float32_matmul_precision",
        "set_float32_matmul_precision",
        "highest",
    ),
}


def _read() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    state: dict[str, Any] = {"working directory": os.getcwd()}  # noqa: PTH109  as os.chdir takes it
    if torch is not None:
        state |= {name: getattr(torch, getter)() for name, (getter, _, _) in _TORCH.items()}
    return state


def _complete(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what was before where torch was imported meanwhile: its first settings."""
    torch = sys.modules["torch"]
    first = {name: initial for name, (_, _, initial) in _TORCH.items() if initial is not None}
    return after | first | {"default dtype": torch.float32} | before


@contextmanager
def guard_global_state(
    culprit: str, *, reported: set[tuple[str, str]] | None = None
) -> Iterator[None]:
    """Compare global state before and after a block; restore what changed, with a warning.

    Args:
        culprit: Who ran in the block, for the warning.
        reported: What was warned of, which is not repeated: for blocks that run again and again.
    """
    before = _read()
    try:
        yield
    finally:
        after = _read()
        if after.keys() != before.keys():
            before = _complete(before, after)
        if after != before:
            _restore(culprit, before, after, set() if reported is None else reported)


def _restore(
    culprit: str, before: dict[str, Any], after: dict[str, Any], reported: set[tuple[str, str]]
) -> None:
    for name, old in before.items():
        if after[name] == old:
            continue
        if name in _TORCH:
            getattr(sys.modules["torch"], _TORCH[name][1])(old)
        else:
            os.chdir(old)
        if (culprit, name) not in reported:
            reported.add((culprit, name))
            logger.warning(
                "%s changed the %s from %s to %s; it was put back", culprit, name, old, after[name]
            )


@contextmanager
def keep_random_streams() -> Iterator[None]:
    """Restore the caller's random streams afterwards: of ``random``, numpy, and torch on the CPU.

    What the block draws, and whether it draws, shifts nothing that is drawn after it.
    """
    python_state = random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_state = numpy.random.get_state() if numpy is not None else None
    torch_state = torch.random.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if torch is not None:
            torch.random.set_rng_state(torch_state)
