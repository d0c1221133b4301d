"""Times steps of two processes on the CPU: pymodules beside a DDP loop written by hand.

Both train the same network on the same batches in the same group of processes, in interleaved
rounds. Start it as it is: it starts the processes itself.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from tables import print_machine, print_table
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from pymodules_core import Processes, Trainer
from pymodules_core.training.run_output.console import SilentPrinter

PROCESSES = 2
ROUNDS = 7
BATCH_SIZE = 128
STEPS = 150
WIDTH = 512
KINDS = ("ddp", "off", "fsdp")

NETWORK = f"""
from torch import nn


def build():
    return nn.Sequential(
        nn.Linear(64, {WIDTH}), nn.ReLU(), nn.Linear({WIDTH}, {WIDTH}), nn.ReLU(),
        nn.Linear({WIDTH}, 10),
    )
"""
TASK = f"""
import torch
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.data import TensorDataset


def train_data():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn({BATCH_SIZE * STEPS}, 64, generator=generator)
    return TensorDataset(inputs, torch.randint(10, (len(inputs),), generator=generator))


def optimizers(module_pool):
    return SGD(module_pool.net.parameters(), lr=0.01)


def train_step(module_pool, batch):
    inputs, labels = batch
    return cross_entropy(module_pool.net(inputs), labels)
"""


class Clock(SilentPrinter):
    """Reads the clock where a pass over the data begins and ends."""

    def pass_started(self, _: object) -> None:
        """Start."""
        self.started_at = time.perf_counter()

    def pass_ended(self, _: int) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.started_at


def by_hand(processes: Processes) -> float:
    """Train as DDP's documentation does; give the seconds."""
    space: dict[str, object] = {}
    exec(NETWORK, space)  # noqa: S102  our own text
    net: nn.Module = space["build"]()  # type: ignore[operator]
    ddp = DistributedDataParallel(net)
    optimizer = SGD(ddp.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH_SIZE * STEPS, 64, generator=generator)
    labels = torch.randint(10, (len(inputs),), generator=generator)
    data = TensorDataset(inputs, labels)
    sampler = DistributedSampler(data, num_replicas=processes.size, rank=processes.rank)
    loader = DataLoader(data, batch_size=BATCH_SIZE // processes.size, sampler=sampler)
    processes.barrier()
    started_at = time.perf_counter()
    for batch, target in loader:
        loss = cross_entropy(ddp(batch), target)
        loss.item()  # as a loop that logs it or looks for NaN does
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - started_at


def with_pymodules(processes: Processes, folder: Path, kind: str) -> float:
    """Train the experiment; give the seconds of its pass over the data."""
    clock = Clock()
    trainer = Trainer(
        folder,
        overrides={
            "train.epochs": 1,
            "train.batch_size": BATCH_SIZE,
            "modules.settings.net.parallel": kind,
        },
        existing="reset",
        reporter=clock,
        processes=processes,
    )
    trainer.fit()
    return processes.run_on_rank0(lambda: clock.seconds)


def measure(folder: Path) -> None:
    """Time all, in the processes that were started."""
    seconds: dict[str, list[float]] = {name: [] for name in ("by hand", *KINDS)}
    with Processes.join() as processes:
        torch.set_num_threads(1)
        for number in range(ROUNDS + 1):
            seconds["by hand"].append(by_hand(processes))
            for kind in KINDS:
                seconds[kind].append(with_pymodules(processes, folder, kind))
            if not number:  # a warm-up
                for found in seconds.values():
                    found.clear()
        if processes.is_first:
            print_machine()
            base = seconds["by hand"]
            print_table(
                ("loop", "ms a step", "least", "of by hand, median of rounds"),
                [
                    (
                        name if name == "by hand" else f'pymodules, parallel = "{name}"',
                        f"{median(found) / STEPS * 1000:.2f}",
                        f"{min(found) / STEPS * 1000:.2f}",
                        f"{median(a / b for a, b in zip(found, base, strict=True)):.2f}",
                    )
                    for name, found in seconds.items()
                ],
            )


def main() -> None:
    """Start the processes, or measure in one of them."""
    if "RANK" in os.environ:
        measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        experiment = Path(folder) / "experiments" / "ranks"
        (experiment / "pymodules" / "modules").mkdir(parents=True)
        (experiment / "pymodules" / "modules" / "net.py").write_text(NETWORK)
        (experiment / "pymodules" / "task.py").write_text(TASK)
        (experiment / "experiment.toml").write_text("")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(PROCESSES), __file__, str(experiment)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
