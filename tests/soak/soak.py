"""A long run under random kills: does anything grow that should not?

Trains 2,000 epochs with commits in each, killed every few seconds at random and gone on with,
beside the same run undisturbed. Prints memory, open files, the size of the store and the time until
a run continues, early and late, and ends with 1 where one of them grew or the two runs differ.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from run_cases import outcome_of
from tables import print_machine, print_table

from pymodules_core.run_files import checkpoints_dir, read_run_file
from pymodules_core.testing import write_experiment

KEPT = 3
# What a process allocates once, and not in every epoch, is done by then.
SETTLED_EPOCHS = 40
SAMPLE_S = 0.1
MOST_GROWTH = 1.1
MOST_SLOWER = 1.5

MODULE = """
from torch import nn

module = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 256))
settings = {settings}
"""
TASK = """
import json
import time
from pathlib import Path

import torch
from torch.nn.functional import mse_loss
from torch.optim import Adam
from torch.utils.data import TensorDataset

STARTED = time.perf_counter()


def dataset(seed):
    return TensorDataset(torch.randn(64, 256, generator=torch.Generator().manual_seed(seed)))


def train_data():
    return dataset(1)


def eval_data():
    return dataset(2)


def optimizers(module_pool):
    return {
        "enc": Adam(module_pool.encoder.parameters(), lr=1e-4),
        "dec": Adam(module_pool.decoder.parameters(), lr=1e-4),
    }


def run_started(run):
    # From the first line of this file on: the imports before it take longer than all the rest.
    with Path(run.data_dir, "opened.jsonl").open("a") as file:
        file.write(json.dumps([run.epoch, time.perf_counter() - STARTED]) + "\\n")


def loss_of(module_pool, batch):
    made = module_pool.decoder(module_pool.encoder(batch[0]))
    return mse_loss(module_pool.lens(made), module_pool.lens(batch[0]))


def train_step(module_pool, batch, run):
    for name in ("enc", "dec"):
        with run.optimize(name) as step:
            step.loss = loss_of(module_pool, batch)


def eval_step(module_pool, batch):
    return {"loss": loss_of(module_pool, batch)}
"""
TOML = f"""
[train]
batch_size = 16

[checkpoints]
keep_epochs = {KEPT}
every_n_steps = 3
"""


@attrs.frozen
class Sample:
    """What a process takes at some epoch of its life.

    Attributes:
        life: How often the run had been killed before.
        epoch: Of the run.
        age: Epochs since the process continued.
        memory_mb: Resident memory.
        files: Open files.
        store_mb: Size of all checkpoints, shared bytes once.
    """

    life: int
    epoch: int
    age: int
    memory_mb: float
    files: int
    store_mb: float


def fit(path: Path, epochs: int) -> None:
    """Train in this process, running with what is there."""
    import torch

    from pymodules_core import Trainer
    from pymodules_core.training.run_output.console import SilentPrinter

    torch.set_num_threads(1)
    overrides = {"train.epochs": epochs}
    reporter = SilentPrinter()
    Trainer(
        path, existing="resume", overrides=overrides, reporter=reporter, load_installed=False
    ).fit()


def lives(path: Path, epochs: int, *, kill_s: float) -> Iterator[Sample]:
    """Train to the end, killed at random, and give samples all the while.

    Args:
        path: The experiment.
        epochs: How many.
        kill_s: How long a process lives at most; 0 for as long as it likes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pymodules_core.training.trainer"])
    choice = random.Random(0)
    life = 0
    while True:
        process = context.Process(target=fit, args=(path, epochs))
        process.start()
        end = time.monotonic() + (choice.uniform(0.5, kill_s) if kill_s else float("inf"))
        first: int | None = None
        while process.is_alive() and time.monotonic() < end:
            time.sleep(SAMPLE_S)
            run = read_run_file(path)
            if run is None or run.process != process.pid:
                continue
            first = run.epoch if first is None else first
            sample = _sample(path, process.pid, life=life, epoch=run.epoch, first=first)
            if sample is not None:
                yield sample
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            life += 1
        process.join()
        if process.exitcode == 0:
            return
        if process.exitcode != -signal.SIGKILL:
            sys.exit(f"a run ended with {process.exitcode}")


def _sample(path: Path, process: int, *, life: int, epoch: int, first: int) -> Sample | None:
    proc = Path("/proc", str(process))
    try:
        pages = int(Path(proc, "statm").read_text().split()[1])
        files = len(os.listdir(proc / "fd"))  # noqa: PTH208  no need for their names
        store_bytes = _size_bytes(checkpoints_dir(path))
    except (OSError, ValueError):  # it ends, or swaps its folders
        return None
    return Sample(
        life=life,
        epoch=epoch,
        age=epoch - first,
        memory_mb=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        files=files,
        store_mb=store_bytes / 1e6,
    )


def _size_bytes(folder: Path) -> int:
    """Add up the files of a folder, those of several names once."""
    found = {
        (status.st_dev, status.st_ino): status.st_size
        for root, _, names in os.walk(folder)
        for status in (os.lstat(os.path.join(root, name)) for name in names)  # noqa: PTH118
    }
    return sum(found.values())


def slope(samples: Sequence[Sample]) -> float | None:
    """Return how memory grows within a life, in kilobytes an epoch: the median over lives.

    None where no life was long enough to report.
    """
    slopes = []
    for life in sorted({sample.life for sample in samples}):
        own = [one for one in samples if one.life == life and one.age >= SETTLED_EPOCHS]
        if len({one.age for one in own}) > SETTLED_EPOCHS:
            fitted = statistics.linear_regression([x.age for x in own], [x.memory_mb for x in own])
            slopes.append(fitted.slope * 1e3)
    return statistics.median(slopes) if slopes else None


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--kill-s", type=float, default=10, help="a process lives at most so long")
    asked = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        paths = [_write(Path(folder), name) for name in ("undisturbed", "killed")]
        runs = [
            list(lives(path, asked.epochs, kill_s=kill_s))
            for path, kill_s in zip(paths, (0, asked.kill_s), strict=True)
        ]
        is_same = outcome_of(paths[0]) == outcome_of(paths[1])
        opened = [json.loads(line) for line in _opened(paths[1])]
    faults = [] if is_same else ["the run that was killed differs from the one that was not"]
    for name, samples in zip(("undisturbed", "killed"), runs, strict=True):
        faults += _report(name, samples)
    faults += _report_openings(opened)
    print("Final weights of all pools, best and every row of metrics.jsonl: ", end="")
    print("the same in both runs" if is_same else "NOT the same")
    if faults:
        sys.exit("\n".join(faults))


def _report(name: str, samples: Sequence[Sample]) -> list[str]:
    """Print a table of early and late samples; give what grew."""
    settled = [one for one in samples if one.age >= SETTLED_EPOCHS] or list(samples)
    third = max(1, len(settled) // 3)
    early, late = settled[:third], settled[-third:]
    rows = []
    faults = []
    kinds = {"memory, MB": "memory_mb", "open files": "files", "store, MB": "store_mb"}
    for title, field in kinds.items():
        # The most: files of a commit come and go, and a sample meets some of them.
        before, after = (max(getattr(one, field) for one in part) for part in (early, late))
        rows.append((title, f"{before:.1f}", f"{after:.1f}"))
        if after > before * MOST_GROWTH:
            faults.append(f"{name}: {title} grew from {before:.1f} to {after:.1f}")
    epochs = samples[-1].epoch
    print(f"\n{name}: {epochs} epochs, {samples[-1].life} kills, {len(samples)} samples")
    print_table(("most of", "first third", "last third"), rows)
    if (growth := slope(samples)) is not None:
        print(f"Memory within the life of a process: {growth:+.2f} kB an epoch")
    return faults


def _report_openings(opened: Sequence[tuple[int, float]]) -> list[str]:
    times = [seconds * 1e3 for epoch, seconds in opened if epoch]
    if len(times) < 6:
        return []
    early, late = times[: len(times) // 2], times[len(times) // 2 :]
    # The least: a machine that others use takes longer at times, and never less.
    before, after = min(early), min(late)
    print(f"\nUntil one of {len(times)} continues: {before:.0f} ms early, {after:.0f} ms late")
    grew = after > before * MOST_SLOWER
    return [f"running takes {after:.0f} ms, and took {before:.0f}"] if grew else []


def _write(folder: Path, name: str) -> Path:
    modules = {
        stem: MODULE.format(settings={"frozen": stem == "lens"})
        for stem in ("encoder", "decoder", "lens")
    }
    return write_experiment(folder / name, modules=modules, task=TASK, toml=TOML)


def _opened(path: Path) -> list[str]:
    return (path / "data" / "opened.jsonl").read_text().splitlines()


if __name__ == "__main__":
    main()
