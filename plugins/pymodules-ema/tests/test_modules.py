"""Modules of every kind have averages, with the keys of the source."""

from pathlib import Path

import pytest
import torch
from pymodules_ema.average import Average, copy_for_average
from pymodules_ema.plugin import Ema
from torch import nn

from pymodules_core import DiscoveryContext, ModulePool, Trainer

ODD = """
import torch
from torch import nn


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 4, bias=False)
        self.body.weight = nn.Parameter(torch.randn(4, 8)[:, ::2])  # not contiguous
        self.tied = self.body
        self.wide = nn.Parameter(torch.randn(4, dtype=torch.float64))
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("moving", torch.zeros(2))
        self.register_buffer("late", None)
        self.register_buffer("cache", torch.zeros(1), persistent=False)

    def forward(self, inputs):
        if self.training:
            self.seen += len(inputs)
            self.moving = self.moving + 1.0  # another tensor each time
            self.cache = inputs.detach()[:, 0]  # of another shape
        hidden = self.tied(self.body(inputs)) * self.wide.to(inputs.dtype)
        return self.head(self.norm(hidden))


module = Odd()
settings = {}
"""

COMPILED_BY_SETTINGS = """
from torch import nn

module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
settings = {"compile": {"backend": "eager"}}
"""

WRAPPED = """
import torch
from torch import nn

module = torch.compile(
    nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)), backend="eager"
)
settings = {}
"""

COMPILED_CHILD = """
import torch
from torch import nn

module = nn.Sequential(
    torch.compile(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), backend="eager"),
    nn.Linear(8, 1),
)
settings = {}
"""

HOLDER = """
from torch import nn

from modules.net import module as net

module = nn.ModuleList([net, nn.Linear(1, 1)])
settings = {}
"""

EMA = '[plugins.settings.ema]\nmodules = ["net"]\ndecay = 0.5\nwarmup = false'

USES_THE_AVERAGE = """
def eval_step(module_pool, batch):
    inputs, targets = batch
    return {"loss": mse_loss(module_pool.net_ema(inputs), targets)}
"""


@pytest.mark.parametrize("kind", ["ODD", "COMPILED_BY_SETTINGS", "WRAPPED", "COMPILED_CHILD"])
# torch.compile itself warns of what it does.
@pytest.mark.filterwarnings("ignore")
def test_modules_of_every_kind_are_averaged(write, load, kind):
    path = write(modules={"net": globals()[kind]}, settings=EMA)
    task = path / "pymodules" / "task.py"
    task.write_text(task.read_text() + USES_THE_AVERAGE)

    Trainer(path).fit()

    trail = torch.load(path / "data" / "trail.pt", weights_only=True)
    average = load(path, "net", "init")
    wanted = [load(path, "net_ema", pool) for pool in ("init", "last", "epoch_3")]
    for _, _, state in trail:
        for key, value in state.items():
            is_buffer = any(word in key for word in ("running", "tracked", "seen", "moving"))
            plain = key.replace("_orig_mod.", "") if kind == "WRAPPED" else key
            average[plain] = value if is_buffer else 0.5 * (average[plain] + value)
    assert all(list(state) == list(load(path, "net")) for state in wanted)
    for key, value in average.items():
        torch.testing.assert_close(wanted[-1][key], value)
    if kind == "ODD":
        assert wanted[-1]["seen"] == 3 * 40
        assert torch.equal(wanted[-1]["body.weight"], wanted[-1]["tied.weight"])


def test_the_average_trains_in_no_way(write):
    path = write(settings=EMA)

    pool = ModulePool.discover(path)

    assert not any(parameter.requires_grad for parameter in pool.net_ema.parameters())
    assert all(parameter.requires_grad for parameter in pool.net.parameters())
    pool.set_training(training=True)
    assert not any(child.training for child in pool.net_ema.modules())
    assert not pool.is_frozen("net_ema")
    shared = {id(tensor) for tensor in pool.net.state_dict(keep_vars=True).values()}
    assert not any(id(t) in shared for t in pool.net_ema.state_dict(keep_vars=True).values())


def test_a_module_that_holds_another_one_is_averaged_as_a_whole(write, load):
    path = write(settings=EMA.replace('"net"', '"holder"'))
    (path / "pymodules" / "modules" / "holder.py").write_text(HOLDER)

    Trainer(path).fit()

    assert list(load(path, "holder_ema")) == list(load(path, "holder"))
    first = load(path, "holder_ema")["0.0.weight"]
    assert not torch.equal(first, load(path, "holder_ema", "init")["0.0.weight"])
    assert not torch.equal(first, load(path, "net")["0.weight"])


def test_an_excluded_average_is_not_kept(write):
    path = write(settings=f'[modules]\nexclude = ["net_ema"]\n{EMA}')

    result = Trainer(path).fit()

    assert result.epochs == 3
    assert not (path / "data" / "module_ckps" / "last" / "net_ema.pt").exists()


def test_the_average_starts_with_loaded_weights(write, load):
    first = write("first")
    Trainer(first).fit()
    source = (
        'load_weights_from_exp = {exp_name = "first", ckp_pool_name = "last", module_name = "net"}'
    )

    second = write("second", settings=f"{EMA}\n[modules.settings.net]\n{source}")
    Trainer(second).fit()
    third = write("third", settings=f"{EMA}\n[modules.settings.net_ema]\n{source}")
    Trainer(third).fit()

    wanted = load(first, "net")["0.weight"]
    assert torch.equal(load(second, "net_ema", "init")["0.weight"], wanted)
    assert torch.equal(load(third, "net_ema", "init")["0.weight"], wanted)
    assert not torch.equal(load(third, "net", "init")["0.weight"], wanted)


def test_without_a_table_nothing_changes(write, load):
    path = write("with")
    Trainer(path).fit()
    other = write("without")
    Trainer(other, load_installed=False).fit()

    files = [
        sorted(str(file.relative_to(one)) for file in (one / "data" / "module_ckps").rglob("*.pt"))
        for one in (path, other)
    ]
    states = [{name for name in part if "/.store/" not in name} for part in files]
    assert states[0] == states[1]
    for key, value in load(other, "net").items():
        assert torch.equal(load(path, "net")[key], value)


def test_other_modules_are_built_as_they_are_without_an_average(write):
    path = write(settings=EMA)

    pool = ModulePool.discover(path)
    (path / "experiment.toml").write_text("")
    plain = ModulePool.discover(path)

    assert list(pool) == ["net", "net_ema"]
    assert list(plain) == ["net"]
    assert torch.equal(pool.net[0].weight, plain.net[0].weight)


def test_the_hook_gives_specs_without_torch():
    plugin = Ema(Ema.Settings(modules=("encoder", "decoder")))
    context = DiscoveryContext(experiment_dir=None, data_home=Path("data"))

    specs = list(plugin.provide_module(context))

    assert [spec.name for spec in specs] == ["encoder_ema", "decoder_ema"]
    assert all(spec.settings == {"mode": "eval"} for spec in specs)


def test_a_buffer_that_the_source_replaces_is_followed():
    source = nn.BatchNorm1d(2)
    source.register_buffer("cache", None, persistent=False)
    source.register_buffer("other", torch.zeros(1), persistent=False)
    copied = copy_for_average(source, name="net")
    average = Average(source, copied, name="net_ema", averages_buffers=True)

    source.cache = torch.ones(3)
    source.other = None
    average.update(decay=0.5)
    source.cache.add_(1)
    first = copied.cache.clone()
    average.update(decay=0.5)

    assert first.tolist() == [1.0] * 3
    assert copied.cache.tolist() == [1.5] * 3
    assert copied.other is None


def test_an_optimizer_counts_from_when_it_gets_a_parameter_of_the_source():
    source = nn.Linear(2, 2)
    average = Average(
        source, copy_for_average(source, name="net"), name="net_ema", averages_buffers=False
    )
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)

    before = average.is_trained_by("main", optimizer)
    optimizer.add_param_group({"params": [source.bias]})

    assert (before, average.is_trained_by("main", optimizer)) == (False, True)


def test_weights_of_small_precision_are_warned_of(caplog):
    source = nn.Linear(2, 2).to(torch.bfloat16)

    Average(source, copy_for_average(source, name="net"), name="net_ema", averages_buffers=False)

    assert "net_ema averages parameters of torch.bfloat16" in caplog.text
