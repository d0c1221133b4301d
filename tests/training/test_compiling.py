"""``compile`` in a module's settings: in place, without a trace in its checkpoints."""

import pytest
import torch
from support import TINY_MODULE, write_experiment
from torch._dynamo.utils import counters

from pymodules_core import ModulePool, Trainer
from pymodules_core.errors import SettingsError
from pymodules_core.module_pool import compile_modules
from pymodules_core.training.reporting import SilentReporter


def compiled(how: str) -> str:
    return TINY_MODULE.replace("{}", f'{{"compile": {how}}}')


def fit(path):
    return Trainer(path, reporter=SilentReporter()).fit()


def weights(path):
    return torch.load(path / "data" / "module_ckps" / "last" / "net.pt", weights_only=True)


def test_a_compiled_module_trains_as_the_plain_one_and_is_saved_like_it(tmp_path):
    plain = write_experiment(tmp_path, "plain")
    # Not inductor: it takes a C++ compiler and half a minute, and the way to it is the same.
    path = write_experiment(tmp_path, "fast", modules={"net": compiled('{"backend": "aot_eager"}')})

    fit(plain)
    torch._dynamo.reset()
    counters.clear()
    fit(path)

    assert counters["stats"]["unique_graphs"] > 0
    assert list(weights(path)) == ["weight", "bias"]
    torch.testing.assert_close(weights(path), weights(plain))


def test_a_module_is_compiled_with_what_its_table_says(tmp_path):
    path = write_experiment(
        tmp_path,
        modules={"net": compiled('{"backend": "eager", "mode": "default", "dynamic": True}')},
    )
    pool = ModulePool.discover(path)
    before = pool.net._compiled_call_impl

    torch._dynamo.reset()
    counters.clear()
    compile_modules(pool)

    assert before is None
    assert pool.net(torch.ones(2, 4)).shape == (2, 1)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(
    "net",
    [
        "nn.Linear(4, 1)",
        "nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))",
        "Own()",
    ],
    ids=["torch's own", "container", "own class"],
)
def test_classes_of_torch_are_compiled_too(tmp_path, net):
    source = (
        "from torch import nn\n\nclass Own(nn.Linear):\n    def __init__(self):\n"
        "        super().__init__(4, 1)\n    def forward(self, x):\n"
        f"        return super().forward(x).relu()\n\nmodule = {net}\n"
        'settings = {"compile": {"backend": "eager"}}\n'
    )
    pool = ModulePool.discover(write_experiment(tmp_path, modules={"net": source}))
    torch._dynamo.reset()
    counters.clear()

    compile_modules(pool)
    pool.net(torch.ones(2, 4))

    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ('"yes"', "net.py:5: settings.compile: expected bool, found str 'yes'"),
        ('{"mod": 1}', "net.py:5: settings.compile.mod: unknown key"),
        ('{"mode": "fast"}', "settings.compile.mode: expected one of 'default', "),
    ],
)
def test_what_means_no_way_to_compile_is_refused(tmp_path, how, message):
    path = write_experiment(tmp_path, modules={"net": compiled(how)})

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert message in str(caught.value)


def test_a_backend_that_is_not_there_is_named(tmp_path):
    path = write_experiment(tmp_path, modules={"net": compiled('{"backend": "indoctor"}')})

    with pytest.raises(SettingsError, match="module 'net' cannot be compiled") as caught:
        fit(path)

    assert caught.value.key == "modules.settings.net.compile"
    assert (caught.value.file, caught.value.line) == (path / "pymodules/modules/net.py", 5)
    assert not (path / "data").exists()
