"""What goes wrong while a pool is built: who did it, in one message, and nothing else changes."""

import importlib
import sys
import time
from functools import partial

import pytest
import torch
from support import TINY_MODULE, write_experiment
from torch import nn

from pymodules_core import CheckpointManager, Experiment, ModulePool, ModuleSpec, Trainer
from pymodules_core.discovery.isolation.slow_calls import watch_call
from pymodules_core.errors import (
    BuildError,
    SettingsError,
    SharedParameterError,
    UninitializedModuleError,
)
from pymodules_core.module_pool import build
from pymodules_core.module_pool.build import PoolBuilder
from pymodules_core.specs import DistributionOrigin
from pymodules_core.training.run_output.console import SilentPrinter

FILE = "data/experiments/tiny/pymodules/modules/net.py"
ORIGIN = DistributionOrigin("acme-nets", "1.2", "plugin")
BUILDS = """
from torch import nn

settings = {{}}


def build({arguments}):
    {body}
    return nn.Linear(4, 1)
"""


def builder_of(factory, *, experiment: Experiment | None = None, **others) -> PoolBuilder:
    specs = {
        name: ModuleSpec(name=name, factory=made, origin=ORIGIN)
        for name, made in {"net": factory, **others}.items()
    }
    return PoolBuilder(specs, seed=0, experiment=experiment)


def test_what_builds_a_module_and_takes_long_is_reported_with_its_place(monkeypatch, caplog):
    monkeypatch.setattr(build, "watch_call", partial(watch_call, warn_after_s=0.05))

    def slow():
        time.sleep(0.2)
        return nn.Linear(4, 1)

    builder_of(slow)["net"]

    (told,) = caplog.messages
    assert told.startswith(
        "building module 'net' of acme-nets 1.2 (plugin) takes more than 0.05 s; this is where"
    )
    assert told.endswith("time.sleep(0.2)")


def test_global_state_that_a_package_changes_at_import_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acme_doubles.py").write_text(
        "import torch\ntorch.set_default_dtype(torch.float64)\nLinear = torch.nn.Identity\n"
    )

    builder_of("acme_doubles:Linear")["net"]

    assert caplog.messages == [
        "building module 'net' of acme-nets 1.2 (plugin) changed the default dtype from "
        "torch.float32 to torch.float64; it was put back"
    ]
    assert torch.get_default_dtype() is torch.float32


def test_a_frozen_and_a_trained_module_may_not_share_a_parameter(home):
    twin = "from modules.net import module\nsettings = {'frozen': True}\n"
    write_experiment(home, modules={"net": TINY_MODULE, "twin": twin})

    with pytest.raises(SharedParameterError) as caught:
        ModulePool.discover("tiny")

    assert str(caught.value) == (
        "frozen module 'twin' and trained module 'net' share a parameter: net.weight is "
        "twin.weight\n"
        "  fix: freeze both, train both, or copy the weights with load_weights_from_exp"
    )
    assert caught.value.found == "twin.weight"


def test_a_frozen_and_a_trained_module_may_not_share_a_buffer():
    norm = torch.nn.BatchNorm1d(1, affine=False)

    with pytest.raises(SharedParameterError) as caught:
        ModulePool.from_modules({"net": norm, "twin": norm}, settings={"twin": {"frozen": True}})

    assert str(caught.value).splitlines()[0] == (
        "frozen module 'twin' and trained module 'net' share a buffer: net.running_mean is "
        "twin.running_mean"
    )


def test_parameters_of_two_trained_modules_are_still_shared_after_a_load(home, tmp_path):
    twin = "from modules.net import module\nsettings = {}\n"
    write_experiment(home, modules={"net": TINY_MODULE, "twin": twin})
    pool = ModulePool.discover("tiny")
    checkpoints = CheckpointManager(tmp_path / "pools", pool)
    checkpoints.start()
    expected = pool.net.weight.detach().clone()
    pool.net.weight.data.zero_()

    checkpoints.load("last")

    assert pool.twin.weight is pool.net.weight
    assert torch.equal(pool.net.weight, expected)


@pytest.mark.parametrize("settings", ["{}", '{"frozen": True}'])
def test_a_lazy_module_that_no_batch_has_shaped_is_named_before_the_run(home, settings):
    lazy = f"from torch import nn\nmodule = nn.LazyLinear(1)\nsettings = {settings}\n"
    path = write_experiment(home, modules={"net": lazy})

    with pytest.raises(UninitializedModuleError) as caught:
        Trainer("tiny", reporter=SilentPrinter()).fit()

    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        f"{FILE}: module 'net' has lazy parameters without a shape: weight, bias\n"
        "  fix: run one batch through it where it is made: "
        "def build(): net = ...; net(torch.zeros(shape)); return net"
    )
    assert not (path / "data").exists()


def test_a_lazy_module_gets_its_shape_in_build_or_by_one_batch(home):
    built = "import torch\nfrom torch import nn\n\n\ndef build():\n    net = nn.LazyLinear(1)\n"
    lazy = "from torch import nn\nmodule = nn.LazyLinear(1)\nsettings = {'frozen': True}\n"
    write_experiment(
        home, modules={"net": f"{built}    net(torch.zeros(1, 4))\n    return net\n", "cold": lazy}
    )
    pool = ModulePool.discover("tiny")
    counts = [entry.parameter_count for entry in pool.entries.values()]

    pool.cold(torch.zeros(1, 4))

    assert counts == [0, 5]
    assert not pool.cold.weight.requires_grad
    CheckpointManager("pools", pool).start()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "acme_gone:build",
            "factory 'acme_gone:build' of module 'net' of acme-nets 1.2 (plugin) cannot be "
            "imported: ModuleNotFoundError: No module named 'acme_gone'\n"
            "  fix: check the dotted name in the plugin's provide_module",
        ),
        (
            "torch.nn:Linaer",
            "factory 'torch.nn:Linaer' of module 'net' of acme-nets 1.2 (plugin) cannot be "
            "imported: AttributeError: module 'torch.nn' has no attribute 'Linaer'\n"
            "  fix: check the dotted name in the plugin's provide_module",
        ),
        (
            "torch:__version__",
            "factory 'torch:__version__' of module 'net' of acme-nets 1.2 (plugin) is "
            f"TorchVersion '{torch.__version__}', not a function\n"
            "  fix: name a function or class that gives the module",
        ),
        (
            lambda: 3,
            "factory of module 'net' of acme-nets 1.2 (plugin): expected an instance of "
            "torch.nn.Module, found int 3\n"
            "  fix: give an instance of a torch.nn.Module subclass",
        ),
        (
            lambda: nn.ReLU,
            "factory of module 'net' of acme-nets 1.2 (plugin): expected an instance of "
            "torch.nn.Module, found class ReLU\n  fix: write ReLU() instead of ReLU",
        ),
        (
            lambda: {}["width"],
            "building module 'net' of acme-nets 1.2 (plugin) raises KeyError: 'width'\n"
            "  fix: report it to the package, or leave the module out: [modules] exclude = "
            '["net"]',
        ),
        (
            lambda: importlib.import_module("no_such_library"),
            "building module 'net' of acme-nets 1.2 (plugin) raises ModuleNotFoundError: No module "
            "named 'no_such_library'\n"
            "  fix: pip install no_such_library, or leave the module out: [modules] exclude = "
            '["net"]',
        ),
        (
            sys.exit,
            "building module 'net' of acme-nets 1.2 (plugin) raises SystemExit\n"
            "  fix: report it to the package, or leave the module out: [modules] exclude = "
            '["net"]',
        ),
    ],
    ids=[
        "no package",
        "no name",
        "no function",
        "int",
        "class",
        "raises",
        "no library",
        "exits",
    ],
)
def test_a_factory_of_a_package_that_gives_no_module_is_named(factory, message):
    with pytest.raises(BuildError) as caught:
        builder_of(factory)["net"]

    assert str(caught.value) == message


def test_an_argument_that_the_factory_does_not_take_is_reported_with_its_line(home):
    path = write_experiment(
        home,
        modules={"net": BUILDS.format(arguments="width=4", body="del width")},
        toml="[modules.args.net]\nwidht = 3\n",
    )

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        "data/experiments/tiny/experiment.toml:2: modules.args.net.widht: the factory takes no "
        "such argument; it takes: width\n  closest match: width\n  fix: write 'width'"
    )


def test_an_argument_that_the_factory_needs_is_asked_for(home):
    path = write_experiment(
        home, modules={"net": BUILDS.format(arguments="width", body="del width")}
    )

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        f"data/experiments/tiny/experiment.toml: modules.args.net: the factory of {FILE} needs "
        "width\n  fix: add to experiment.toml:  [modules.args.net]  width = ..."
    )


def test_factories_of_packages_that_ask_for_each_other_are_refused():
    def build_net(module_pool):
        return nn.Sequential(module_pool.twin)

    def build_twin(module_pool):
        return nn.Sequential(module_pool["net"])

    with pytest.raises(BuildError) as caught:
        builder_of(build_net, twin=build_twin)["net"]

    assert str(caught.value) == (
        "factories ask for each other's modules in a circle: net -> twin -> net\n"
        "  fix: let one of them build what it needs itself"
    )
