"""``compile`` in a module's settings: in place, without a trace in its checkpoints."""

import pytest
import torch
import torch.distributed as dist
from support import TINY_MODULE, write_experiment
from torch._dynamo.utils import counters
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pymodules_core import ModulePool, Trainer, compile_modules
from pymodules_core.errors import SettingsError
from pymodules_core.training.run_output.console import SilentPrinter


def compiled(how: str) -> str:
    return TINY_MODULE.replace("{}", f'{{"compile": {how}}}')


def fit(path):
    return Trainer(path, reporter=SilentPrinter()).fit()


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


def test_as_many_modules_are_compiled_as_there_are(tmp_path):
    source = 'from torch import nn\n\nmodule = nn.Linear(4, {})\nsettings = {{"compile": {}}}\n'
    names = {f"net_{size}": size for size in range(1, 10)}
    eager = '{"backend": "eager", "dynamic": False}'
    modules = {name: source.format(size, eager) for name, size in names.items()}
    pool = ModulePool.discover(write_experiment(tmp_path, modules=modules))
    torch._dynamo.reset()
    counters.clear()

    compile_modules(pool)
    for module in pool.values():
        module(torch.ones(2, 4))

    assert counters["stats"]["unique_graphs"] == len(names)


@pytest.fixture
def mesh():
    """One process that is a group of its own."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


# A warning of torch's compiler about a tensor between two graphs, which it hides itself elsewhere.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("has_block", [False, True])
def test_classes_of_torch_are_compiled_under_fsdp_too(tmp_path, mesh, has_block):
    source = (
        "from torch import nn\n\nmodule = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "
        'nn.Linear(4, 1))\nsettings = {"compile": {"backend": "eager"}}\n'
    )
    pool = ModulePool.discover(write_experiment(tmp_path, modules={"net": source}))
    expected = pool.net(torch.ones(2, 4))
    if has_block:  # at whose hooks the compiler stops
        fully_shard(pool.net[0], mesh=mesh)
    fully_shard(pool.net, mesh=mesh)
    torch._dynamo.reset()
    counters.clear()

    compile_modules(pool)
    found = pool.net(torch.ones(2, 4))

    assert counters["stats"]["unique_graphs"] == (2 if has_block else 1)
    assert not counters["graph_break"]
    torch.testing.assert_close(found, expected)
    assert list(pool.net.state_dict()) == ["0.0.weight", "0.0.bias", "1.weight", "1.bias"]


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
