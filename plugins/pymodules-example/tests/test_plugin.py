"""The plugin as its users meet it: found by the host, built, trained with.

The fixtures and ``assert_plugin_conforms`` come with pymodules-core.
"""

import pytest
import torch
from pymodules_example import plugin

from pymodules_core.errors import SettingsError
from pymodules_core.testing import assert_plugin_conforms

BLUR = """
from torch import nn

module = nn.Conv2d(1, 1, 3, padding=1)
settings = {}
"""
TASK = """
import torch
from torch.optim import Adam
from torch.utils.data import TensorDataset


def train_data():
    return TensorDataset(torch.rand(32, 1, 6, 6, generator=torch.Generator().manual_seed(0)))


def optimizers(module_pool):
    return Adam(module_pool.blur.parameters(), lr=0.05)


def train_step(module_pool, batch):
    edges = module_pool.example_edges
    return (edges(module_pool.blur(batch[0])) - edges(batch[0])).abs().mean()
"""


def test_the_installed_package_fulfils_what_a_plugin_has_to():
    assert_plugin_conforms("pymodules-example")


def test_the_hook_provides_a_frozen_module(make_plugin_manager):
    plugins = make_plugin_manager({"example": plugin})

    (spec,) = plugins.provided_specs()

    assert spec.name == "example_edges"
    assert spec.settings == {"frozen": True}


def test_settings_choose_the_operator(make_experiment, make_pool):
    path = make_experiment(toml='[plugins.settings.example]\noperator = "scharr"\n')

    pool = make_pool(path, {"example": plugin})

    assert torch.allclose(pool.example_edges.kernels[0, 0, :, 2] * 32, torch.tensor([3.0, 10, 3]))


def test_a_misspelt_operator_is_reported_with_the_nearest(make_plugin_manager):
    with pytest.raises(SettingsError, match="write 'sobel'"):
        make_plugin_manager({"example": plugin}, settings={"example": {"operator": "sobl"}})


def test_a_module_learns_through_it(make_experiment, train_steps):
    path = make_experiment(modules={"blur": BLUR}, task=TASK, toml="[train]\nbatch_size = 8\n")

    trained = train_steps(path, 40, plugins={"example": plugin})

    losses = [row["metrics"]["loss"] for row in trained.rows if row["phase"] == "train"]
    assert losses[-1] < losses[0] / 2
    assert (trained.data_dir / "module_ckps" / "frzn" / "example_edges.pt").is_file()
