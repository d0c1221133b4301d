"""Averages of modules that several processes share are those of one process."""

import os
import subprocess
import sys

import pytest
import torch

from pymodules_core import Trainer

# No batch norm: each process has its own. In float64, so that the order of sums shows nowhere.
NET = """
from torch import nn

module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
settings = {}
"""
TASK = """
import torch
from torch.nn.functional import mse_loss
from torch.optim import SGD
from torch.utils.data import TensorDataset


def train_data():
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(1)).double()
    return TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))


def optimizers(module_pool):
    return SGD(module_pool.net.parameters(), lr=0.05, momentum=0.9)


def train_step(module_pool, batch):
    inputs, targets = batch
    return mse_loss(module_pool.net(inputs), targets)
"""
SETTINGS = """
[plugins.settings.ema]
modules = ["net"]
decay = 0.9
"""
# Of the source only: the average takes it over.
FSDP = """
[modules.settings.net]
parallel = "fsdp"
"""


def train_in_two(path, *options):
    """Train by the command, in two processes that see the packages of this one."""
    return subprocess.run(
        [sys.executable, "-m", "pymodules_core", "train", str(path), "--nproc", "2", *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize(
    ("more", "parts"), [("", ["3"]), (FSDP, ["2", "3"])], ids=["ddp", "fsdp, resumed"]
)
def test_averages_of_two_processes_are_those_of_one(write, load, more, parts):
    alone = write("alone", modules={"net": NET}, task=TASK, settings=SETTINGS)
    Trainer(alone).fit()
    path = write("two", modules={"net": NET}, task=TASK, settings=SETTINGS + more)

    for epochs in parts:
        result = train_in_two(path, "--resume", "--epochs", epochs)
        assert result.returncode == 0, result.stderr

    for name in ("net", "net_ema"):
        for key, value in load(alone, name).items():
            torch.testing.assert_close(load(path, name)[key], value, rtol=1e-9, atol=1e-9)
