"""Files that other programs wrote: of wrapped modules, with weights one level down, safetensors."""

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from support import write_experiment
from torch import nn

from pymodules_core import (
    ModulePool,
    apply_weights,
    load_initial_weights,
    match_weights,
    read_state_dict,
)
from pymodules_core.errors import CheckpointFileError, WeightMismatchError

MODULE = """
from collections import OrderedDict
from torch import nn

module = nn.Sequential(OrderedDict(enc=nn.Linear(2, 3), norm=nn.BatchNorm1d(3)))
settings = {"load_weights_from_ckp": {"ckp_name": "%s"}}
"""


def make_net(seed: int = 7) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(enc=nn.Linear(2, 3), norm=nn.BatchNorm1d(3)))


def load_from(home, content, name="given.pt"):
    """Save ``content`` as a checkpoint file and load it into a module of an experiment."""
    path = home / "module_ckps" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    pool = ModulePool.discover(write_experiment(home, modules={"net": MODULE % name}))
    [report] = load_initial_weights(pool)
    return pool.net, report


def is_same(module, other):
    mine, others = module.state_dict(), other.state_dict()
    return list(mine) == list(others) and all(torch.equal(mine[k], others[k]) for k in mine)


def compiled_child():
    net = make_net()
    net.enc = torch.compile(net.enc, backend="eager")
    return net


@pytest.mark.parametrize(
    ("wrapped", "key"),
    [
        (lambda: nn.DataParallel(make_net()), "module.enc.weight"),
        (lambda: torch.compile(make_net(), backend="eager"), "_orig_mod.enc.weight"),
        (
            lambda: nn.DataParallel(torch.compile(make_net(), backend="eager")),
            "module._orig_mod.enc.weight",
        ),
        (compiled_child, "enc._orig_mod.weight"),
    ],
    ids=["data parallel", "compiled", "both", "compiled child"],
)
def test_the_state_dict_of_a_wrapped_module_is_taken_and_said(home, caplog, wrapped, key):
    state = wrapped().state_dict()
    assert key in state

    net, report = load_from(home, state)

    assert is_same(net, make_net())
    assert report.renamed[key] == "enc.weight"
    assert report.is_complete
    assert ", saved from inside DDP or torch.compile" in str(report)
    assert f"weights of {report}, from data/module_ckps/given.pt" in caplog.messages


def test_weights_one_level_down_are_taken_and_said(home, caplog):
    content = {
        "epoch": 3,
        "optimizer": {"state": {0: {"step": 1}}, "param_groups": []},
        "state_dict": nn.DataParallel(make_net()).state_dict(),
    }

    net, report = load_from(home, content)

    assert is_same(net, make_net())
    assert report.found_under == "state_dict"
    assert str(report) == (
        "net: 7 tensors loaded, 100%, 7 renamed, saved from inside DDP or torch.compile, "
        "found under 'state_dict'"
    )
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"weights of {report}, from data/module_ckps/given.pt")
    ]


def test_two_modules_in_one_file_are_not_guessed_at(home):
    inner = make_net().state_dict()

    with pytest.raises(WeightMismatchError, match="missing in the file"):
        load_from(home, {"student": inner, "teacher": inner})


def test_a_module_that_has_a_child_called_module_keeps_its_keys(tmp_path):
    pool = ModulePool.from_modules(
        {"net": nn.Sequential(OrderedDict(module=make_net(0)))},
        settings={"net": {"load_weights_from_ckp": {"ckp_name": "given.pt"}}},
        data_home=tmp_path,
    )
    (tmp_path / "module_ckps").mkdir()
    given = nn.Sequential(OrderedDict(module=make_net()))
    torch.save(given.state_dict(), tmp_path / "module_ckps" / "given.pt")

    [report] = load_initial_weights(pool)

    assert is_same(pool.net, given)
    assert report.renamed == {}


def test_a_safetensors_file_is_taken(home):
    net, report = load_from(home, make_net().state_dict(), "given.safetensors")

    assert is_same(net, make_net())
    assert report.coverage == 100


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_safetensors_file_that_was_cut_short_is_refused(tmp_path, kept):
    path = tmp_path / "net.safetensors"
    save_file(make_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(CheckpointFileError, match="is not a whole safetensors file: ") as caught:
        read_state_dict(path)

    assert caught.value.fix == "download or copy it again, or take another file"


def test_where_loaded_weights_came_from_is_kept(home):
    state = make_net().state_dict()
    path = home / "module_ckps" / "given.pt"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    pool = ModulePool.discover(write_experiment(home, modules={"net": MODULE % "given.pt"}))

    load_initial_weights(pool)

    origin = pool.weights_origins["net"]
    assert origin.ckp_name == "given.pt"
    assert origin.experiment is None
    assert len(origin.digest) == 64


class Turned(nn.Module):
    """Its first version kept its weights the other way round."""

    _version = 2

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(values))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *more):
        if local_metadata.get("version", 1) < 2:
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"].flip(0)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *more)


@pytest.mark.parametrize(
    ("wrap", "rename"),
    [
        (lambda net: net, None),
        (nn.DataParallel, None),
        (lambda net: nn.Sequential(OrderedDict(net=net)), {"net.": ""}),
        (lambda net: nn.DataParallel(nn.Sequential(OrderedDict(net=net))), {"module.net.": ""}),
    ],
    ids=["plain", "wrapped", "renamed", "both"],
)
def test_the_versions_of_parts_go_with_their_keys(tmp_path, wrap, rename):
    file = tmp_path / "net.pt"
    torch.save(wrap(Turned([1.0, 2.0, 3.0])).state_dict(), file)
    net = Turned([0.0, 0.0, 0.0])

    matched = match_weights(
        read_state_dict(file), net, module_name="net", source=file, rename=rename
    )
    apply_weights([(net, *matched)])

    assert net.weight.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "beside",
    [torch.eye(3).to_sparse(), torch.zeros(1).expand(10**7), torch.empty(2, device="meta")],
    ids=["sparse", "expanded", "meta"],
)
def test_what_lies_beside_the_weights_is_not_looked_at(home, beside):
    net, _ = load_from(home, {"state_dict": make_net().state_dict(), "beside": beside})

    assert is_same(net, make_net())
