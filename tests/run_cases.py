"""Runs that are killed and continue: an experiment with everything, and processes to kill."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support import write_experiment

from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.cli.main import run
from pymodules_core.run_files import checkpoints_dir

# Dropout, batch norm, random augmentation, two optimizers with accumulation, clipping and
# schedulers, bf16, an averaged copy of weights, values of its own, a shuffled DataLoader.
EVERYTHING_MODULES = {
    "encoder": """
        from torch import nn

        module = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4)
        )
        settings = {}
    """,
    "decoder": """
        from torch import nn

        module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 6))
        settings = {}
    """,
    "average": """
        from torch import nn

        module = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4)
        )
        module.requires_grad_(False)
        settings = {"mode": "eval"}
    """,
    "perceptual": """
        from torch import nn

        module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))
        settings = {"frozen": True}
    """,
}
EVERYTHING_TASK = """
import os
import random

import numpy as np
import torch
from torch.nn.functional import mse_loss
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset

WORKERS, IS_PLAIN = {workers}, {is_plain}


class Noisy(Dataset):
    def __init__(self, length, seed):
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(length, 6, generator=generator)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        noise = random.gauss(0, 0.1) + np.random.normal(0, 0.1) + torch.randn(6) * 0.1
        return (self.inputs[index] + noise).float()


def train_data():
    if IS_PLAIN:  # draws nothing: the steps draw from one stream, from the first to the last
        return list(Noisy(100, 1).inputs.split(8))
    return DataLoader(Noisy(100, 1), batch_size=8, shuffle=True, num_workers=WORKERS)


def eval_data():
    return DataLoader(Noisy(40, 2), batch_size=16)


def optimizers(module_pool):
    return {{
        "enc": Adam(module_pool.encoder.parameters(), lr=1e-2),
        "dec": SGD(module_pool.decoder.parameters(), lr=1e-2, momentum=0.9),
    }}


def schedulers(optimizers):
    return {{
        "enc": ReduceLROnPlateau(optimizers["enc"], patience=1),
        "dec": OneCycleLR(optimizers["dec"], max_lr=0.1, total_steps=600),
    }}


def run_started(run):
    run.state.setdefault("updates", 0)
    run.state.setdefault("history", [])
    if run.step == 0:
        run.module_pool.average.load_state_dict(run.module_pool.encoder.state_dict())


def die(where):
    if os.environ.get("DIE_AT") == where:
        raise RuntimeError("the power is gone")


def train_step_finished(run, stepped):
    die(f"train {{run.step}}")
    if "enc" not in stepped:
        return
    run.state["updates"] += 1
    run.state["history"] = [*run.state["history"], np.float32(run.step)][-5:]
    average, encoder = run.module_pool.average, run.module_pool.encoder
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), encoder.parameters()):
            slow.lerp_(fast, 0.1)
        for slow, fast in zip(average.buffers(), encoder.buffers()):
            slow.copy_(fast)


def train_step(module_pool, batch, run):
    noise = torch.randn_like(batch) * random.random() * 0.1
    with run.optimize("enc") as step:
        made = module_pool.decoder(module_pool.encoder(batch + noise))
        step.loss = mse_loss(module_pool.perceptual(made), module_pool.perceptual(batch))
    with run.optimize("dec") as step:
        step.loss = mse_loss(module_pool.decoder(module_pool.encoder(batch)), batch)
    run.log("noise", noise.abs().mean())


def eval_step(module_pool, batch, run):
    die(f"eval {{run.epoch}}")
    made = module_pool.decoder(module_pool.average(batch))
    return {{"loss": mse_loss(made, batch), "updates": float(run.state["updates"])}}
"""
EVERYTHING_TOML = """
[train]
epochs = 4
precision = "bf16"

[optimizers.enc]
accumulate = 3
clip_norm = 0.5

[optimizers.dec]
accumulate = 2
clip_value = 0.1
schedule = "step"

[checkpoints]
every_n_steps = 4
"""


def write_everything(home: Path, name: str, *, workers: int = 0, is_plain: bool = False) -> Path:
    """Write the experiment with everything; ``is_plain``: but for random items."""
    return write_experiment(
        home,
        name,
        modules=EVERYTHING_MODULES,
        task=EVERYTHING_TASK.format(workers=workers, is_plain=is_plain),
        toml=EVERYTHING_TOML,
    )


def copy_example(home: Path, example: str, name: str | None = None) -> Path:
    """Copy an example experiment into a data home, without what its runs wrote."""
    source = Path(__file__).parents[1] / "data" / "experiments" / example
    target = home / "experiments" / (name or example)
    shutil.copytree(source / "pymodules", target / "pymodules")
    shutil.copy(source / "experiment.toml", target)
    return target


def outcome_of(path: Path) -> dict[str, Any]:
    """Return what has to be equal: the digests of all modules in all pools, all logged metrics."""
    (record, *_) = readable_records(Layout(checkpoints_dir(path)))
    log = (path / "data" / "metrics.jsonl").read_text().splitlines()
    return {
        "pools": {name: dict(pool.modules) for name, pool in sorted(record.pools.items())},
        "best": record.best,
        "log": [json.loads(line) for line in log],
    }


def fit(path: str, overrides: Mapping[str, Any]) -> None:
    """Train in this process, running with what is there; nothing is printed."""
    import torch

    from pymodules_core import Trainer
    from pymodules_core.training.run_output.console import SilentPrinter

    # Workers of a killed run end with it only where they are its own children.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    reporter = SilentPrinter()
    Trainer(path, existing="resume", overrides=overrides, reporter=reporter).fit()


class KilledRuns:
    """Starts runs in processes of their own and kills them.

    A server process that has imported torch forks them: an import takes longer than a run.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["pymodules_core.training", "pymodules_core.training.trainer", "sklearn.datasets"]
        )
        imported = self._context.Process(target=int)
        imported.start()
        imported.join()

    def finish(self, path: Path, **overrides: Any) -> float:
        """Train to the end and return the seconds that took."""
        start = time.monotonic()
        process = self._start(path, overrides)
        process.join(300)
        assert process.exitcode == 0
        return time.monotonic() - start

    def kill_and_finish(self, path: Path, whole: Path, *, kills: int, **overrides: Any) -> int:
        """Kill a run at random moments, then let it finish.

        Args:
            path: The experiment.
            whole: The same experiment; it is trained to the end first, to know how long that takes.
            kills: How often.
            overrides: Of both.

        Returns:
            How many kills met the run before it was finished.
        """
        training_s = self.finish(whole, **overrides)
        start_s = self.finish(whole, **overrides)  # nothing is left to do
        training_s -= start_s
        # Each attempt gets less than its share of the run, so that it cannot end early.
        moments = random.Random(str(path))
        killed = 0
        for _ in range(kills):
            process = self._start(path, overrides)
            process.join(start_s * 0.8 + moments.uniform(0, training_s / kills))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
            process.join()
            assert process.exitcode in {0, -signal.SIGKILL}
        self.finish(path, **overrides)
        return killed

    def _start(self, path: Path, overrides: Mapping[str, Any]) -> Any:
        keys = {key.replace("__", "."): value for key, value in overrides.items()}
        process = self._context.Process(target=fit, args=(str(path), keys))
        process.start()
        return process


def run_forked(
    *arguments: object, before: Callable[[], object] = lambda: None
) -> tuple[int, str, str]:
    """Be the command in a fork of this process, which has imported torch already.

    Args:
        arguments: Of the command.
        before: Called first, in the fork.

    Returns:
        The exit code, negative for a signal; standard output and standard error.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            code = 99
            try:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                sys.stdout, sys.stderr = output, errors
                before()
                code = run([*map(str, arguments)])
            finally:
                output.flush()
                errors.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        errors.seek(0)
        return code, output.read(), errors.read()


def left_over(path: Path) -> list[str]:
    """Return what a run that has ended must not leave in its data folder."""
    data = path / "data"
    return [
        str(file.relative_to(data))
        for file in data.rglob("*")
        if file.name.startswith(".writing-")
        or file.name in {"holder.json", "sources.tmp"}
        or {"stage", "quarantine"} & {*file.relative_to(data).parts[:-1]}
    ]
