"""Times what a training loop pays for its checkpoints, beside other ways to keep the same ones.

Rounds are interleaved: in each, every way trains the same epochs, and a run without checkpoints
comes before each. In between the disk is synced and the folder removed, on nobody's clock.
"""

import argparse
import mmap
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import attrs
import torch
from checkpoint_peers import PEERS, Clock, Floor, Nothing, Peer, Pymodules, Workload
from tables import print_machine, print_table

MB = 1 << 20


@attrs.frozen
class Measurement:
    """One run, a mean over its epochs.

    Attributes:
        in_calls_ms: Time inside the calls, an epoch.
        over_none_ms: Wall time of an epoch over one without checkpoints.
        disk_bytes: What lies on disk after it, each block counted once.
    """

    in_calls_ms: float
    over_none_ms: float
    disk_bytes: int


def main() -> None:
    """Measure both sizes and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    parser.add_argument("--size", choices=["256MB", "1GB", "both"], default="both")
    parser.add_argument("--only", default="", help="peers whose name holds this")
    options = parser.parse_args()
    print_machine()
    sizes = {"256MB": (4, 256 * MB, 1.0), "1GB": (8, 1024 * MB, 3.0)}
    for name, (modules, size_bytes, train_s) in sizes.items():
        if options.size not in {name, "both"}:
            continue
        work = Workload(modules=modules, size_bytes=size_bytes, train_s=train_s)
        with tempfile.TemporaryDirectory(dir=options.folder) as parent:
            folder = Path(parent) / "checkpoints"
            print(f"\n## {name} in {modules} modules")
            compare(work, folder, options.rounds, options.epochs, options.only)
            print_durable(work, folder, options.rounds)


def compare(work: Workload, folder: Path, rounds: int, epochs: int, only: str) -> None:
    """Run all peers in rounds and print the table."""
    found: dict[str, list[Measurement]] = defaultdict(list)
    written: list[float] = []
    durable: dict[str, str] = {}
    for _ in range(rounds):
        for make in PEERS:
            peer = make()
            if only not in peer.name:
                continue
            none_s, _ = run(Nothing(), work, folder, epochs)
            wall_s, in_calls_s = run(peer, work, folder, epochs)
            found[peer.name].append(
                Measurement(
                    in_calls_ms=in_calls_s / epochs * 1000,
                    over_none_ms=(wall_s - none_s) / epochs * 1000,
                    disk_bytes=disk_bytes(folder),
                )
            )
            durable[peer.name] = peer.durable
            if type(peer) is Pymodules:
                written.append(sum(r.bytes_written for r in peer.receipts) / epochs)
    floor = median(one.in_calls_ms for one in found[Floor.name]) if Floor.name in found else 1.0
    print_table(
        [
            "way to save",
            "in calls ms",
            "of floor",
            "epoch over none ms",
            "min",
            "max",
            "disk MB",
            "durable",
        ],
        [
            [
                name,
                f"{median(one.in_calls_ms for one in many):,.1f}",
                f"{median(one.in_calls_ms for one in many) / floor:.1f}",
                f"{median(one.over_none_ms for one in many):,.0f}",
                f"{min(one.over_none_ms for one in many):,.0f}",
                f"{max(one.over_none_ms for one in many):,.0f}",
                f"{many[0].disk_bytes / MB:,.0f}",
                durable[name],
            ]
            for name, many in found.items()
        ],
    )
    if written:
        print(f"pymodules wrote {median(written) / work.size_bytes:.4f} of the pool an epoch.")


def run(peer: Peer, work: Workload, folder: Path, epochs: int) -> tuple[float, float]:
    """Train once; give the wall time of all epochs, and the time inside the calls."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()
    clock = Clock()
    peer.train(work, epochs, folder, clock)
    return time.perf_counter() - clock.started, clock.in_calls_s


def disk_bytes(folder: Path) -> int:
    """Return what lies below a folder; a file with several names counts once."""
    files = {path.stat().st_ino: path.stat() for path in folder.rglob("*") if path.is_file()}
    return sum(status.st_size for status in files.values())


def print_durable(work: Workload, folder: Path, rounds: int) -> None:
    """Time one commit until it is durable, beside the same bytes written and synced raw."""
    folder.mkdir(exist_ok=True)
    peer = Pymodules()
    peer.open(work, folder / "store")
    content = mmap.mmap(-1, work.size_bytes)
    torch.frombuffer(content, dtype=torch.float32).normal_()
    found: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, call: Callable[[], object]) -> None:
        os.sync()
        start = time.perf_counter()
        call()
        found[name].append((time.perf_counter() - start) * 1000)

    for epoch in range(1, 2 * rounds + 1):
        work.train()

        def commit(epoch: int = epoch) -> None:
            peer.save(["last", "best", f"epoch_{epoch}"], epoch)
            peer._manager.wait()

        timed("pymodules, until durable", commit)
        for name, flags in (("direct", os.O_DIRECT), ("through the page cache", 0)):
            timed(f"raw write and fsync, {name}", partial(write_raw, folder, content, flags))
    peer.close()
    best_raw = min(median(times) for name, times in found.items() if name.startswith("raw"))
    print_table(
        ["one save, nothing else running", "median ms", "min", "max", "of the better raw write"],
        [
            [
                name,
                f"{median(times):,.0f}",
                f"{min(times):,.0f}",
                f"{max(times):,.0f}",
                f"{median(times) / best_raw:.2f}",
            ]
            for name, times in found.items()
        ],
    )


def write_raw(folder: Path, content: mmap.mmap, flags: int) -> None:
    """Write the same bytes to a new file, 4 MB a call, and sync it."""
    path = folder / "raw"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    pages = memoryview(content)
    for chunk in chunks(pages):
        os.write(descriptor, chunk)
    os.fsync(descriptor)
    os.close(descriptor)


def chunks(pages: memoryview) -> Sequence[memoryview]:
    """Cut memory into chunks of 4 MB."""
    return [pages[start : start + 4 * MB] for start in range(0, len(pages), 4 * MB)]


if __name__ == "__main__":
    main()
