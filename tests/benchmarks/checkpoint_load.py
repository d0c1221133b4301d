"""Times how long it takes to bring a pool's weights back into live modules.

Everything ends in the same live parameters, with all files in the page cache and with none there.
``pymodules`` reads through the commit record and verifies every byte; the others verify nothing.
Rounds are interleaved.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import safetensors.torch
import torch
from checkpoint_peers import Workload
from tables import print_machine, print_table
from torch import nn

from pymodules_core import CheckpointManager, ModulePool

MB = 1 << 20


def main() -> None:
    """Measure both sizes and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    options = parser.parse_args()
    print_machine()
    for name, modules, size_bytes in (("256MB", 4, 256 * MB), ("1GB", 8, 1024 * MB)):
        work = Workload(modules=modules, size_bytes=size_bytes, train_s=0.01)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(f"\n## {name} in {modules} modules")
            compare(work.modules, Path(folder), options.rounds)


def compare(modules: dict[str, nn.Module], folder: Path, rounds: int) -> None:
    """Load in every way, in rounds, and print the table."""
    with CheckpointManager(folder / "pools", ModulePool.from_modules(modules)) as checkpoints:
        checkpoints.start()
    for name, module in modules.items():
        safetensors.torch.save_file(module.state_dict(), folder / f"{name}.safetensors")
    files = {name: folder / "pools" / "last" / f"{name}.pt" for name in modules}
    weights = [p.data for module in modules.values() for p in module.parameters()]
    copies = [torch.zeros_like(weight) for weight in weights]

    def load_torch(*, mapped: bool) -> None:
        for name, module in modules.items():
            module.load_state_dict(torch.load(files[name], weights_only=True, mmap=mapped))

    def load_safetensors() -> None:
        for name, module in modules.items():
            file = folder / f"{name}.safetensors"
            module.load_state_dict(safetensors.torch.load_file(file))

    ways: dict[str, Callable[[], object]] = {
        "a copy in memory": lambda: torch._foreach_copy_(weights, copies),
        "pymodules, verified": lambda: checkpoints.load("last"),
        "torch.load, load_state_dict": lambda: load_torch(mapped=False),
        "torch.load mapped, load_state_dict": lambda: load_torch(mapped=True),
        "safetensors, load_state_dict": load_safetensors,
    }
    paths = [file for file in folder.rglob("*") if file.is_file()]
    warm: dict[str, list[float]] = defaultdict(list)
    cold: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, load in ways.items():
            forget(paths)
            cold[name].append(timed(load))
            # Read once to the end by somebody else, so that nobody gains from how another read.
            for path in paths:
                path.read_bytes()
            warm[name].append(timed(load))
    peer = "torch.load, load_state_dict"
    print_table(
        [
            "way to load",
            "in memory ms",
            "min",
            "max",
            "of torch.load",
            "from disk ms",
            "min",
            "max",
            "of torch.load",
        ],
        [
            [name, *figures(warm[name], warm[peer]), *figures(cold[name], cold[peer])]
            for name in ways
        ],
    )


def timed(load: Callable[[], object]) -> float:
    """Return the milliseconds of a call."""
    start = time.perf_counter()
    load()
    return (time.perf_counter() - start) * 1000


def forget(paths: list[Path]) -> None:
    """Take files out of the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def figures(times: list[float], peer: list[float]) -> list[str]:
    """Return median, least and most, and the ratio of medians."""
    return [
        *(f"{figure(times):,.0f}" for figure in (median, min, max)),
        f"{median(times) / median(peer):.2f}",
    ]


if __name__ == "__main__":
    main()
