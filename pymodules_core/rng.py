"""Random streams derived from (run seed, what for), so that one use never shifts another.

Each module draws its initial weights from its own stream. Installing a plugin, or adding a file,
changes no other module's weights.
"""

import hashlib
import importlib
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch

_NUMPY_SEED_LIMIT = 2**32
_MASK = 2**64 - 1


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Hash a run seed and a purpose into a 63-bit seed.

    Args:
        seed: The run's seed.
        purpose: What the stream is for, such as ``("module", "encoder")``.
    """
    text = "\0".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def mix_seed(seed: int, number: int) -> int:
    """Mix a seed and a count into a 63-bit seed; a tenth of what ``derive_seed`` takes.

    Source: SplitMix64 of Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
    OOPSLA 2014.

    Args:
        seed: From ``derive_seed``.
        number: What the stream is for, counted from 0.
    """
    mixed = (seed + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) >> 1


def seed_everything(seed: int) -> None:
    """Seed torch on all devices, ``random``, and numpy where it is imported."""
    torch.manual_seed(seed)
    seed_streams(seed)


def seed_streams(seed: int) -> None:
    """Seed the streams an item may draw from: torch on the CPU, ``random``, numpy if imported.

    Not ``torch.manual_seed``: that also asks every kind of device, which takes 100 times as long.
    """
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % _NUMPY_SEED_LIMIT)


@contextmanager
def random_stream(seed: int, *purpose: str | int) -> Iterator[None]:
    """Run a block under its own stream and restore those of the caller.

    Args:
        seed: The run's seed.
        purpose: What the stream is for.
    """
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy is not None else None
    python_state = random.getstate()
    devices = list(range(torch.cuda.device_count())) if _is_cuda_in_use() else []
    with torch.random.fork_rng(devices=devices):
        seed_everything(derive_seed(seed, *purpose))
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy is not None:
                numpy.random.set_state(numpy_state)


class IsolatedStreams:
    """A ``with`` block that draws from streams seeded with ``seed`` and restores the caller's.

    It costs 20 to 50 µs, most of it for reading and writing the state of ``random``.

    Args:
        seed: Of the next block.
    """

    __slots__ = ("_numpy", "_numpy_before", "_numpy_own", "_python", "_torch", "seed")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._numpy: Any = None

    def __enter__(self) -> None:
        self._torch = torch.default_generator.get_state()
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            if self._numpy is None:
                self._numpy, self._numpy_own = numpy.random, numpy.random.MT19937()
            # Another generator in its place: reading and writing the state takes 70 µs.
            self._numpy_before = numpy.random.get_bit_generator()
            numpy.random.set_bit_generator(self._numpy_own)
        seed_streams(self.seed)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        torch.default_generator.set_state(self._torch)
        random.setstate(self._python)
        if self._numpy is not None:
            self._numpy.set_bit_generator(self._numpy_before)


def random_state() -> dict[str, Any]:
    """Return the state of every global stream there is."""
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kind, words, *rest = numpy.random.get_state()
        state["numpy"] = [kind, torch.tensor(words.tolist(), dtype=torch.int64), *rest]
    if _is_cuda_in_use():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore the global streams to what ``random_state`` returned.

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


def _is_cuda_in_use() -> bool:
    is_initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's
    return torch.cuda.is_available() and is_initialized
