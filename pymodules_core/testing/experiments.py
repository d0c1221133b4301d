"""Experiment folders made of strings."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

TINY_MODULE = """
from torch import nn

module = nn.Linear(4, 1)
settings = {}
"""

# Linear regression on 40 samples: the last batch of 16 is smaller than the others.
TINY_TASK = """
import torch
from torch.nn.functional import mse_loss
from torch.optim import SGD
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
    return SGD(module_pool.net.parameters(), lr=0.1)


def train_step(module_pool, batch):
    inputs, targets = batch
    return mse_loss(module_pool.net(inputs), targets)


def eval_step(module_pool, batch):
    inputs, targets = batch
    return {"loss": mse_loss(module_pool.net(inputs), targets)}
"""
TINY_TOML = "[train]\nepochs = 2\nbatch_size = 16\n"


def write_experiment(
    home: Path,
    name: str = "tiny",
    *,
    modules: Mapping[str, str] | None = None,
    task: str = TINY_TASK,
    toml: str = TINY_TOML,
) -> Path:
    """Write ``<home>/experiments/<name>`` and return its path.

    Args:
        home: The data home.
        name: The experiment.
        modules: File stem to source of each file in ``pymodules/modules``, helpers included; by
            default one linear module called ``net``, of 4 inputs and 1 output.
        task: Source of ``task.py``; by default linear regression on 40 samples with SGD.
        toml: ``experiment.toml``; by default 2 epochs of batches of 16, which are 3 steps each.
    """
    path = home / "experiments" / name
    folder = path / "pymodules" / "modules"
    folder.mkdir(parents=True)
    for stem, source in ({"net": TINY_MODULE} if modules is None else modules).items():
        (folder / f"{stem}.py").write_text(dedent(source))
    (path / "pymodules" / "task.py").write_text(dedent(task))
    (path / "experiment.toml").write_text(dedent(toml))
    return path
