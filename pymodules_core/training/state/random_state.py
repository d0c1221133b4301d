"""The global random streams as tensors and primitives: torch on all devices, python, numpy."""

import importlib
import random
import sys
from collections.abc import Mapping
from typing import Any

import torch


def random_state() -> dict[str, Any]:
    """Give the state of every global stream there is."""
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kind, words, *rest = numpy.random.get_state()
        state["numpy"] = [kind, torch.tensor(words.tolist(), dtype=torch.int64), *rest]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put the global streams back to what ``random_state`` gave.

    Streams of devices that this machine does not have stay as they are.
    """
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    if "numpy" in state:
        kind, words, *rest = state["numpy"]
        numpy = importlib.import_module("numpy")
        numpy.random.set_state((kind, numpy.array(words.tolist(), dtype=numpy.uint32), *rest))
    if torch.cuda.is_available():
        for index, one in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(one, index)
