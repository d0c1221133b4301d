"""What a spec says of its factory: arguments, which the experiment may replace, and weights."""

import json

import pytest
from support import GOOD_PLUGIN, write_experiment

from pymodules_core import ModulePool, ModuleSpec
from pymodules_core.cli.main import run
from pymodules_core.errors import BuildError, InvalidSpecError, SettingsError

PROVIDER = """
from torch import nn
from pymodules_core import ModuleSpec, hookimpl

def build(width, depth=1, module_pool=None):
    net = nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])
    net.others = sorted(module_pool)
    return net

@hookimpl
def provide_module(context):
    return ModuleSpec(
        name="acme", factory="acme_nets:build", arguments={arguments}, description="Layers."
    )
"""


def discover(install, tmp_path, arguments, toml=""):
    install("acme-broken", "raise ValueError('boom')")
    install("acme-nets", PROVIDER.replace("{arguments}", arguments))
    return ModulePool.discover(write_experiment(tmp_path, toml=toml))


def test_a_specs_arguments_reach_the_factory_beside_the_pool(install_distribution, tmp_path):
    pool = discover(install_distribution, tmp_path, "{'width': 3, 'depth': 2}")

    assert [layer.in_features for layer in pool.acme] == [3, 3]
    assert pool.acme.others == ["acme", "net"]


def test_arguments_of_the_experiment_win_one_by_one(install_distribution, tmp_path):
    toml = "[modules.args.acme]\ndepth = 3\n"

    pool = discover(install_distribution, tmp_path, "{'width': 3, 'depth': 2}", toml)

    assert [layer.in_features for layer in pool.acme] == [3, 3, 3]


def test_an_argument_that_nobody_gives_is_missing_in_the_experiment(install_distribution, tmp_path):
    with pytest.raises(SettingsError, match="the factory of acme-nets"):
        discover(install_distribution, tmp_path, "{}")


def test_an_argument_that_the_factory_does_not_take_is_the_plugins_mistake(
    install_distribution, tmp_path
):
    with pytest.raises(BuildError) as caught:
        discover(install_distribution, tmp_path, "{'width': 3, 'dept': 2}")

    assert str(caught.value) == (
        "factory of module 'acme' of acme-nets 1.0 (plugin) takes no argument 'dept', which its "
        "spec gives; it takes: width, depth\n"
        "  closest match: depth\n"
        "  fix: correct the arguments of the ModuleSpec in the plugin"
    )


def test_arguments_are_a_dict():
    with pytest.raises(InvalidSpecError) as caught:
        ModuleSpec(name="net", factory="torch.nn:Linear", arguments=[3])

    assert str(caught.value) == (
        "arguments of module 'net': expected dict, found list\n"
        "  fix: pass a dict of keyword arguments, such as {'width': 64}"
    )


def test_weights_that_a_factory_takes_itself_are_named_where_weights_are(
    install_distribution, home, capsys
):
    source = GOOD_PLUGIN.replace('name="good", ', 'name="good", weights="lm_small", ')
    install_distribution("acme-good", source)
    path = write_experiment(home, toml="[train]\nepochs = 1\n")

    codes = [run(["list", "tiny"]), run(["train", "tiny"])]

    assert codes == [0, 0]
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("good ")]
    assert [row[3] for row in rows] == ["lm_small", "lm_small"]
    modules = json.loads((path / "data" / "run.json").read_text())["modules"]
    assert [module["weights"] for module in modules] == ["lm_small", None]
