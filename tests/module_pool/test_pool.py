"""The module pool: a mapping of modules, each built under its own random stream."""

import gc
import pickle
import random
import sys
import weakref

import numpy as np
import pytest
import torch
from support import TINY_MODULE, write_experiment
from torch import nn

from pymodules_core import ModulePool
from pymodules_core.errors import BuildError, UnknownModuleError
from pymodules_core.names import RESERVED_MODULE_NAMES
from pymodules_core.rng import derive_seed, random_stream
from pymodules_core.specs import FileOrigin

BUILD = """
from torch import nn


def build(width: int = 2):
    return nn.Linear(width, 1)
"""


def test_modules_are_sorted_by_name_whatever_order_they_come_in():
    pool = ModulePool.from_modules({"b": nn.Identity(), "a": nn.Identity()})

    assert list(pool) == ["a", "b"]
    assert pool.a is pool["a"]
    assert len(pool) == 2
    assert "a" in pool
    assert "c" not in pool


def test_an_unknown_name_is_reported_with_the_closest():
    pool = ModulePool.from_modules({"encoder": nn.Identity()})

    for access in (lambda: pool["encodr"], lambda: pool.encodr):
        with pytest.raises(UnknownModuleError) as caught:
            access()
        assert str(caught.value) == (
            "no module 'encodr' in the pool; there are: encoder\n  closest match: encoder\n"
            "  fix: write 'encoder'"
        )
    assert not hasattr(pool, "encodr")
    assert pool.get("encodr") is None


def test_every_public_attribute_of_the_pool_is_reserved():
    pool_names = {name for name in dir(ModulePool) if not name.startswith("_")}
    instance_names = {n for n in vars(ModulePool.from_modules({})) if not n.startswith("_")}

    assert pool_names | instance_names <= RESERVED_MODULE_NAMES


def test_settings_and_origin_are_kept_with_each_module(tmp_path):
    path = write_experiment(tmp_path, modules={"net": TINY_MODULE})

    pool = ModulePool.discover(path)

    assert pool.settings["net"].frozen is False
    assert pool.origins["net"] == FileOrigin(path / "pymodules" / "modules" / "net.py")


def test_a_frozen_module_takes_no_gradient_and_stays_in_eval_mode():
    pool = ModulePool.from_modules(
        {"cold": nn.Dropout(), "net": nn.Linear(1, 1)}, settings={"cold": {"frozen": True}}
    )

    pool.set_training(training=True)

    assert (pool.cold.training, pool.net.training) == (False, True)


@pytest.mark.parametrize("outer", ["after", "zoo"])
def test_mode_eval_holds_for_a_module_inside_another_whatever_their_names(outer):
    norm = nn.BatchNorm1d(1)
    pool = ModulePool.from_modules(
        {"norm": norm, outer: nn.Sequential(norm)}, settings={"norm": {"mode": "eval"}}
    )

    pool.set_training(training=True)

    assert pool[outer].training
    assert not norm.training


def test_mode_eval_keeps_a_trained_module_in_eval_mode():
    pool = ModulePool.from_modules({"net": nn.BatchNorm1d(1)}, settings={"net": {"mode": "eval"}})

    pool.set_training(training=True)

    assert pool.net.training is False
    assert pool.net.weight.requires_grad


def test_initial_weights_depend_on_seed_and_name_alone(tmp_path):
    alone = write_experiment(tmp_path, "alone", modules={"net": TINY_MODULE})
    crowd = write_experiment(
        tmp_path,
        "crowd",
        modules={
            "a": "import torch\ntorch.manual_seed(9)\ntorch.rand(7)\n" + TINY_MODULE,
            "net": TINY_MODULE,
            "z": BUILD,
        },
    )

    net = ModulePool.discover(alone).net.weight

    assert torch.equal(ModulePool.discover(crowd).net.weight, net)
    assert not torch.equal(ModulePool.discover(crowd).a.weight, net)
    assert not torch.equal(ModulePool.discover(alone, seed=1).net.weight, net)


def test_the_importer_does_not_change_what_the_imported_draws(tmp_path):
    first = "from modules.net import module as other\n" + TINY_MODULE
    before = write_experiment(tmp_path, "before", modules={"a": first, "net": TINY_MODULE})
    without = write_experiment(tmp_path, "without", modules={"a": TINY_MODULE, "net": TINY_MODULE})

    one, two = ModulePool.discover(before), ModulePool.discover(without)

    assert torch.equal(one.a.weight, two.a.weight)
    assert torch.equal(one.net.weight, two.net.weight)


def test_discovery_leaves_the_callers_random_numbers_alone(tmp_path):
    path = write_experiment(
        tmp_path,
        modules={
            "net": "import random, numpy, torch\nrandom.random(); numpy.random.rand()\n"
            + TINY_MODULE
        },
    )
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()

    ModulePool.discover(path)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


def test_streams_for_different_purposes_differ_and_repeat():
    with random_stream(0, "module", "a"):
        first = torch.rand(3)
    with random_stream(0, "module", "a"):
        again = torch.rand(3)
    with random_stream(0, "module", "b"):
        other = torch.rand(3)

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Names do not run together: ("ab", "c") and ("a", "bc") are two purposes.
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")


def test_two_discoveries_in_one_process_share_no_module(tmp_path):
    path = write_experiment(tmp_path)

    one, two = ModulePool.discover(path), ModulePool.discover(path)

    assert one.net is not two.net
    assert torch.equal(one.net.weight, two.net.weight)


def test_two_files_with_one_module_stay_tied_and_are_recorded(tmp_path):
    path = write_experiment(
        tmp_path,
        modules={
            "encoder": TINY_MODULE,
            "decoder": "from modules.encoder import module\nsettings = {}\n",
        },
    )

    pool = ModulePool.discover(path)

    assert pool.encoder is pool.decoder
    assert pool.shared_parameters == [
        ["decoder.weight", "encoder.weight"],
        ["decoder.bias", "encoder.bias"],
    ]


def test_a_factory_may_ask_for_another_module(tmp_path):
    path = write_experiment(
        tmp_path,
        modules={
            "a_copy": "import copy\n\ndef build(module_pool):\n"
            "    return copy.deepcopy(module_pool.net)\n",
            "net": TINY_MODULE,
        },
    )

    pool = ModulePool.discover(path)

    assert pool.a_copy is not pool.net
    assert torch.equal(pool.a_copy.weight, pool.net.weight)


def test_factories_that_ask_for_each_other_are_refused(tmp_path):
    ask = "def build(module_pool):\n    return module_pool.{}\n"
    path = write_experiment(tmp_path, modules={"a": ask.format("b"), "b": ask.format("a")})

    with pytest.raises(BuildError, match=r"in a circle: a -> b -> a"):
        ModulePool.discover(path)


def test_args_of_the_experiment_reach_build(tmp_path):
    path = write_experiment(
        tmp_path, modules={"net": BUILD}, toml="[modules.args.net]\nwidth = 5\n"
    )

    assert ModulePool.discover(path).net.weight.shape == (1, 5)


def test_settings_of_the_experiment_overlay_the_modules_own(tmp_path):
    path = write_experiment(
        tmp_path,
        modules={"net": TINY_MODULE.replace("{}", '{"mode": "eval"}')},
        toml="[modules.settings.net]\nfrozen = true\n",
    )

    settings = ModulePool.discover(path).settings["net"]

    assert (settings.frozen, settings.mode) == (True, "eval")


def test_a_pool_cannot_be_mistaken_for_a_module_by_copy_or_pickle(tmp_path):
    pool = ModulePool.from_modules({"net": nn.Linear(1, 1)})

    again = pickle.loads(pickle.dumps(pool))  # noqa: S301  our own bytes

    assert torch.equal(again.net.weight, pool.net.weight)
    assert list(again) == ["net"]


def test_include_and_exclude_choose_by_pattern(tmp_path, caplog):
    sources = dict.fromkeys(("enc_a", "enc_b", "dec"), TINY_MODULE)
    path = write_experiment(
        tmp_path,
        modules=sources | {"enc_c": "raise RuntimeError('excluded files do not run')"},
        toml='[modules]\ninclude = ["enc_*", "foo*"]\nexclude = ["enc_c"]\n',
    )

    pool = ModulePool.discover(path)

    assert list(pool) == ["enc_a", "enc_b"]
    assert caplog.messages == [
        "modules.include: 'foo*' matches no module; there are: dec, enc_a, enc_b, enc_c"
    ]


def test_a_pool_that_is_gone_is_forgotten_by_the_next(tmp_path):
    path = write_experiment(tmp_path, modules={"net": TINY_MODULE, "_helper": ""})
    pool = ModulePool.discover(path)
    net = weakref.ref(pool.net)
    names = {name for name in sys.modules if vars(sys.modules[name]).get("module") is pool.net}

    del pool
    gc.collect()
    ModulePool.discover(path)

    gc.collect()
    assert net() is None
    assert names
    assert names.isdisjoint(sys.modules)
