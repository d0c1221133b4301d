"""Experiments as real folders, with this package installed."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import importlib_metadata
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PROJECT = Path(__file__).parents[1] / "pyproject.toml"

NET = """
from torch import nn

module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
settings = {}
"""

# A linear regression of 40 samples in batches of 4, ten steps an epoch.
TASK = """
import os
import time

import torch
from torch.nn.functional import mse_loss
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import TensorDataset


def dataset(seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 4, generator=generator)
    return TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))


def train_data():
    return dataset(1)


def eval_data():
    return dataset(2)


def optimizers(module_pool):
    first, _, last = module_pool.net
    groups = [{"params": first.parameters()}, {"params": last.parameters(), "lr": 0.02}]
    return SGD(groups, lr=0.05, momentum=0.9)


def schedulers(optimizers):
    return ExponentialLR(optimizers["main"], 0.9)


def train_step(module_pool, batch, run):
    time.sleep(float(os.environ.get("STEP_S", 0)))
    inputs, targets = batch
    loss = mse_loss(module_pool.net(inputs), targets)
    return {"loss": loss, "size": inputs.abs().mean()}


def eval_step(module_pool, batch, run):
    inputs, targets = batch
    predictions = module_pool.net(inputs)
    if torch.equal(inputs[0], dataset(2)[0][0]):
        run.log_image("predictions", predictions.detach().sigmoid().reshape(-1, 1, 1, 2))
    return {"loss": mse_loss(predictions, targets)}


def crash(hook, run):
    if os.environ.get("CRASH_AT") == f"{hook} {run.step}":
        raise RuntimeError("the power is gone")


def train_step_finished(run):
    crash("step", run)


def epoch_finished(run):
    crash("epoch", run)
"""

TOML = """
[train]
epochs = 3
batch_size = 4
device = "cpu"
[checkpoints]
every_n_steps = 7
"""


def _site(folder: Path) -> Path:
    """Make the package a distribution, as pip does, and return the folder to put on the path."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in project["entry-points"]["pymodules"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[pymodules]", *lines, ""]))
    return folder


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch) -> dict[str, str]:
    """Install the package, also for processes that get this environment."""
    path = [str(PROJECT.parent / "src"), os.environ.get("PYTHONPATH", "")]
    try:
        importlib_metadata.distribution("pymodules-tensorboard")
    except importlib_metadata.PackageNotFoundError:
        path.insert(0, str(_site(tmp_path / "site")))
        monkeypatch.syspath_prepend(path[0])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write an experiment into the data home ``tmp_path/home``."""

    def write_experiment(name="tiny", *, task=TASK, settings="", toml=TOML) -> Path:
        path = tmp_path / "home" / name / "experiments" / "tiny"
        folder = path / "pymodules" / "modules"
        folder.mkdir(parents=True)
        (folder / "net.py").write_text(dedent(NET))
        (path / "pymodules" / "task.py").write_text(dedent(task))
        (path / "experiment.toml").write_text(f"{dedent(toml)}\n{dedent(settings)}")
        return path

    return write_experiment


@pytest.fixture
def read() -> Callable[..., EventAccumulator]:
    """Read the log of an experiment as TensorBoard does."""

    def read_log(experiment: Path, *, is_purged: bool = False) -> EventAccumulator:
        everything = dict.fromkeys(
            ("scalars", "images", "histograms", "tensors", "compressedHistograms"), 0
        )
        folder = experiment / "data" / "tensorboard"
        return EventAccumulator(
            str(folder), size_guidance=everything, purge_orphaned_data=is_purged
        ).Reload()

    return read_log


@pytest.fixture
def points(read) -> Callable[..., list]:
    """Return every point of a log, sorted: tag, step, value; without the notes of checkpoints."""

    def all_points(experiment: Path, **options) -> list:
        log = read(experiment, **options)
        tags = log.Tags()
        found = [(t, e.step, e.value) for t in tags["scalars"] for e in log.Scalars(t)]
        found += [
            (t, e.step, e.encoded_image_string) for t in tags["images"] for e in log.Images(t)
        ]
        found += [
            (t, e.step, repr(e.histogram_value))
            for t in tags["histograms"]
            for e in log.Histograms(t)
        ]
        found += [
            (t, e.step, e.tensor_proto.SerializeToString())
            for t in tags["tensors"]
            if not t.startswith("checkpoints")
            for e in log.Tensors(t)
        ]
        return sorted(found, key=repr)

    return all_points
