"""Networks of LightningModules in the pool of pymodules' own trainer."""

import copy
import json
import pickle
import subprocess
import sys
from textwrap import dedent

import pymodules_lightning.plugin
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning_cases import same_weights
from lightning_projects import PLUGINS, Encoder, table

from pymodules_core import ModulePool
from pymodules_core.testing import assert_plugin_conforms

DISTILL = """
    [train]
    epochs = 4
    batch_size = 16
    """
TASK = """
    import torch
    from torch.nn.functional import mse_loss
    from torch.utils.data import TensorDataset


    def train_data():
        return TensorDataset(torch.randn(160, 4, generator=torch.Generator().manual_seed(2)))


    eval_data = train_data


    def optimizers(module_pool):
        return torch.optim.Adam(module_pool.net.parameters(), lr=0.05)


    def train_step(module_pool, batch):
        (inputs,) = batch
        return mse_loss(module_pool.net(inputs), module_pool.teacher(inputs))


    def eval_step(module_pool, batch):
        return {"loss": train_step(module_pool, batch)}
    """


def test_a_student_distils_from_a_network_that_lightning_trained(
    trained, home, make_experiment, train_steps
):
    model, file = trained
    fields = {"arguments": "{ width = 6 }", "frozen": "true", "ckp_name": '"sum.ckpt"'}
    path = make_experiment("distil", toml=dedent(DISTILL) + table(**fields), task=TASK)

    result = train_steps(path, plugins=PLUGINS)

    saved = torch.load(path / "data/module_ckps/frzn/teacher.pt", weights_only=True)
    content = torch.load(file, weights_only=True)["state_dict"]
    assert list(saved) == list(model.encoder.state_dict())
    assert all(torch.equal(saved[key], content[f"encoder.{key}"]) for key in saved)
    inputs = torch.randn(5, 4)
    assert torch.equal(result.pool.teacher(inputs), model.encoder.eval()(inputs))
    losses = [row["metrics"]["loss"] for row in result.rows if row["phase"] == "eval"]
    assert losses[-1] < 0.5 * losses[0]
    # The optimizer of the LightningModule did not come along.
    assert not any(p.requires_grad for p in result.pool.teacher.parameters())


def test_the_network_knows_nothing_of_lightning(trained, make_experiment, make_pool):
    path = make_experiment(toml=table(arguments="{ width = 6 }", ckp_name='"sum.ckpt"'))

    teacher = make_pool(path, PLUGINS).teacher

    pickled = pickle.dumps(teacher)
    assert type(teacher) is Encoder
    assert not any(isinstance(module, LightningModule) for module in teacher.modules())
    assert b"LitSum" not in pickled
    assert b"ightning.pytorch" not in pickled
    assert same_weights(copy.deepcopy(teacher).state_dict(), teacher.state_dict())
    assert same_weights(pickle.loads(pickled).state_dict(), trained[0].encoder.state_dict())  # noqa: S301


def test_torchs_versions_of_layers_come_along(trained, make_experiment, make_pool, monkeypatch):
    versions = []
    load = torch.nn.BatchNorm1d._load_from_state_dict

    def see(self, state, prefix, metadata, *args):
        versions.append((prefix, metadata.get("version")))
        return load(self, state, prefix, metadata, *args)

    # With code of its own for loading, as BatchNorm had before its version 2.
    monkeypatch.setattr(torch.nn.BatchNorm1d, "_load_from_state_dict", see)
    path = make_experiment(toml=table(arguments="{ width = 6 }", ckp_name='"sum.ckpt"'))

    make_pool(path, PLUGINS)

    assert versions == [("body.1.", 2)]


def test_a_part_of_a_network_is_taken_by_its_path(trained, make_experiment, make_pool):
    fields = {"attribute": '"encoder.body.0"', "arguments": "{ width = 6 }"}
    path = make_experiment(toml=table(ckp_name='"sum.ckpt"', **fields))

    teacher = make_pool(path, PLUGINS).teacher

    assert torch.equal(teacher.weight, trained[0].encoder.body[0].weight)


@pytest.mark.parametrize("name", ["LitLate", "LitOld"])
def test_classes_that_are_made_otherwise_are_taken_too(name, make_experiment, make_pool):
    path = make_experiment(toml=table(lightning_module=f'"lightning_projects:{name}"'))

    assert make_pool(path, PLUGINS).teacher.out.in_features == 3


def test_weights_follow_from_the_runs_seed(make_experiment, make_plugin_manager, caplog):
    path = make_experiment(toml=table())
    plugins = make_plugin_manager(PLUGINS, experiment=path)
    before = torch.random.get_rng_state()

    pools = [ModulePool.discover(path, seed=seed, plugins=plugins) for seed in (0, 0, 1)]

    first, again, other = (pool.teacher.state_dict() for pool in pools)
    assert same_weights(first, again)
    assert not same_weights(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    # The host names what a factory changes around it.
    assert caplog.messages == []


def test_arguments_of_the_experiment_win(make_experiment, make_pool):
    lines = ("[modules.args.teacher]", "width = 5")
    path = make_experiment(toml=table(*lines, arguments="{ width = 6, rate = 0.1 }"))

    assert make_pool(path, PLUGINS).teacher.out.in_features == 5


def test_without_a_table_nothing_is_provided(installed, make_experiment):
    pool = ModulePool.discover(make_experiment())

    assert list(pool) == ["net"]


def test_the_installed_plugin_says_where_the_network_is_from(installed, make_experiment):
    pool = ModulePool.discover(make_experiment(toml=table(frozen="true")))

    assert str(pool.origins["teacher"]) == "pymodules-lightning 0.1.0 (lightning)"
    assert pool.is_frozen("teacher")


def test_the_plugin_conforms():
    settings = {"lightning_module": "lightning_projects:LitSum", "attribute": "encoder"}

    assert_plugin_conforms(pymodules_lightning.plugin, settings={"modules": {"teacher": settings}})


def test_the_plugin_is_light():
    code = (
        "import json, sys, pymodules_lightning.plugin as plugin; plugin.Settings(); "
        "print(json.dumps([*sys.modules]))"
    )

    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    ).stdout

    imported = json.loads(output)
    assert "pymodules_lightning.plugin" in imported
    assert not {"torch", "lightning", "pytorch_lightning"} & set(imported)
