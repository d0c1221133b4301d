"""What is merely installed changes no weight and no metric of anybody else's run."""

import pytest
from run_cases import outcome_of, write_everything
from support import write_experiment

from pymodules_core import ModulePool, Trainer
from pymodules_core.testing.digests import digests_of_pool
from pymodules_core.training.run_output.console import SilentPrinter

# Draws, seeds and changes whatever it can reach, at every moment it is given.
NOISY = """
import os
import random

import attrs
import numpy
import torch

from pymodules_core import ModuleSpec, hookimpl


def disturb():
    random.random()
    numpy.random.rand(3)
    torch.rand(3)
    torch.manual_seed(99)
    random.seed(99)
    numpy.random.seed(99)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    os.chdir("/")


disturb()


def build():
    disturb()
    return torch.nn.Linear(3, 3)


class Noisy:
    def __init__(self):
        disturb()

    @hookimpl
    def provide_module(self):
        disturb()
        return ModuleSpec(name="a_noisy", factory="acme_noisy:build")

    @hookimpl
    def weights_ready(self, run):
        disturb()

    @hookimpl
    def run_started(self, run):
        disturb()

    @hookimpl
    def train_step_finished(self, run):
        torch.rand(3)
        random.random()
        numpy.random.rand(3)

    @hookimpl
    def epoch_finished(self, run):
        disturb()

    @hookimpl
    def checkpoint_committed(self, run):
        disturb()

    def state_dict(self):
        disturb()
        return {}

    def load_state_dict(self, state):
        pass
"""


def outcome_without_noise(path):
    found = outcome_of(path)
    found["pools"] = {
        pool: {name: digest for name, digest in modules.items() if name != "a_noisy"}
        for pool, modules in found["pools"].items()
    }
    return found


def fit(path):
    Trainer(path, overrides={"train.epochs": 2}, reporter=SilentPrinter()).fit()


def test_an_unrelated_plugin_changes_no_initial_weights(install_distribution, tmp_path):
    path = write_everything(tmp_path, "one")
    before = digests_of_pool(ModulePool.discover(path))

    install_distribution("acme-noisy", NOISY, target="acme_noisy:Noisy")
    after = digests_of_pool(ModulePool.discover(path))

    assert "a_noisy" in after
    assert before.items() <= after.items()


@pytest.mark.parametrize("is_plain", [False, True], ids=["random items", "one stream"])
def test_an_unrelated_plugin_changes_no_metric_and_no_trained_weight(
    install_distribution, tmp_path, is_plain
):
    quiet = write_everything(tmp_path, "quiet", is_plain=is_plain)
    noisy = write_everything(tmp_path, "noisy", is_plain=is_plain)
    fit(quiet)

    install_distribution("acme-noisy", NOISY, target="acme_noisy:Noisy")
    fit(noisy)

    assert outcome_without_noise(noisy) == outcome_without_noise(quiet)
    assert len(outcome_of(noisy)["pools"]["last"]) > len(outcome_of(quiet)["pools"]["last"])


def test_a_plugin_that_is_only_installed_leaves_the_callers_streams_alone(
    install_distribution, tmp_path
):
    import torch

    path = write_experiment(tmp_path)
    install_distribution("acme-noisy", NOISY, target="acme_noisy:Noisy")

    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    ModulePool.discover(path)

    assert torch.equal(torch.rand(4), expected)
