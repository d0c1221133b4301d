"""What tests build experiments from: real folders with real files."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from pymodules_core.discovery import PluginManager, PluginRecord

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

GOOD_PLUGIN = """
from pymodules_core import ModuleSpec, hookimpl

@hookimpl
def provide_module(context):
    return ModuleSpec(name="good", factory="torch.nn:Identity", settings={"frozen": True})
"""


def write_experiment(
    home: Path,
    name: str = "tiny",
    *,
    modules: Mapping[str, str] | None = None,
    task: str = TINY_TASK,
    toml: str = "[train]\nepochs = 2\nbatch_size = 16\n",
) -> Path:
    """Write ``<home>/experiments/<name>`` and give its path.

    Args:
        home: The data home.
        name: The experiment.
        modules: File stem to source of each file in ``pymodules/modules``, helpers included; by
            default one linear module called ``net``.
        task: Source of ``task.py``.
        toml: ``experiment.toml``.
    """
    path = home / "experiments" / name
    folder = path / "pymodules" / "modules"
    folder.mkdir(parents=True)
    for stem, source in (modules or {"net": TINY_MODULE}).items():
        (folder / f"{stem}.py").write_text(dedent(source))
    (path / "pymodules" / "task.py").write_text(dedent(task))
    (path / "experiment.toml").write_text(dedent(toml))
    return path


def start_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``pymodules`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pymodules_core", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def record_of(plugins: PluginManager, distribution: str) -> PluginRecord:
    """Give the record of a distribution's only plugin."""
    return next(r for r in plugins.records if r.name.startswith(f"{distribution}:"))
