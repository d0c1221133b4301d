"""Experiments as real folders, with this package installed."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import importlib_metadata
import pytest
import torch

PROJECT = Path(__file__).parents[1] / "pyproject.toml"

NET = """
from torch import nn

module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
settings = {}
"""

# A linear regression of 40 samples in batches of 16. After each step the task writes down what the
# optimizers did and the weights of the source, from which a test computes the average by hand.
TASK = """
import copy
import os

import torch
from torch.nn.functional import mse_loss
from torch.optim import SGD
from torch.utils.data import TensorDataset

TRAIL = []


def dataset(seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 4, generator=generator)
    return TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))


def train_data():
    return dataset(1)


def eval_data():
    return dataset(2)


def optimizers(module_pool):
    return SGD(module_pool.net.parameters(), lr=0.05, momentum=0.9)


def train_step(module_pool, batch):
    inputs, targets = batch
    return mse_loss(module_pool.net(inputs), targets)


def eval_step(module_pool, batch):
    inputs, targets = batch
    return {"loss": mse_loss(module_pool.net(inputs), targets)}


def train_step_finished(run, stepped):
    TRAIL.append((run.step, sorted(stepped), copy.deepcopy(run.module_pool.net.state_dict())))
    if os.environ.get("CRASH_AT_STEP") == str(run.step):
        raise RuntimeError("the power is gone")


def run_finished(run):
    torch.save(TRAIL, run.data_dir / "trail.pt")
"""

TOML = """
[train]
epochs = 3
batch_size = 16
device = "cpu"
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch):
    """Make the package a distribution, as pip does, where the environment has it as files only."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    try:
        importlib_metadata.distribution(project["name"])
    except importlib_metadata.PackageNotFoundError:
        name, version = project["name"], project["version"]
        folder = tmp_path / "site" / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
        )
        lines = [f"{key} = {value}" for key, value in project["entry-points"]["pymodules"].items()]
        (folder / "entry_points.txt").write_text("\n".join(["[pymodules]", *lines, ""]))
        monkeypatch.syspath_prepend(str(folder.parent))


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write an experiment into the data home ``tmp_path/home``."""

    def write_experiment(name="tiny", *, modules=None, task=TASK, settings="", toml=TOML) -> Path:
        path = tmp_path / "home" / "experiments" / name
        folder = path / "pymodules" / "modules"
        folder.mkdir(parents=True)
        for stem, source in (modules or {"net": NET}).items():
            (folder / f"{stem}.py").write_text(dedent(source))
        (path / "pymodules" / "task.py").write_text(dedent(task))
        (path / "experiment.toml").write_text(f"{dedent(toml)}\n{dedent(settings)}")
        return path

    return write_experiment


@pytest.fixture
def load() -> Callable[..., dict]:
    """Read a module of a pool of an experiment."""

    def load_state(experiment: Path, module: str, pool: str = "last") -> dict:
        file = experiment / "data" / "module_ckps" / pool / f"{module}.pt"
        return torch.load(file, weights_only=True)

    return load_state
