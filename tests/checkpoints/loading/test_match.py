"""Weights that do not fit: one table, the way out, and a module that stays as it was."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, apply_weights, match_weights
from pymodules_core.errors import CheckpointError, CheckpointNotFoundError, WeightMismatchError

FILE = Path("net.pt")
STRICT_OFF = "strict = False for missing and unexpected keys"


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(enc=nn.Linear(2, 3), norm=nn.BatchNorm1d(3)))


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def is_same(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(state) == list(other) and all(torch.equal(state[k], other[k]) for k in state)


def match(state, module, **options):
    return match_weights(state, module, module_name="net", source=FILE, **options)


def load(state, module, **options):
    fitting, report = match(state, module, **options)
    apply_weights([(module, fitting, report)])
    return report


def refusal(state, module, **options) -> WeightMismatchError:
    before = snapshot(module)
    with pytest.raises(WeightMismatchError) as caught:
        load(state, module, **options)
    assert is_same(module.state_dict(), before)
    return caught.value


def test_all_that_does_not_fit_is_one_table_and_nothing_changes():
    state = {key: value + 1 for key, value in make_net().state_dict().items()}
    state["enc.weight"] = torch.ones(5, 2)
    state["norm.running_meen"] = state.pop("norm.running_mean")
    state["norm.bias"] = "text"
    del state["enc.bias"]

    error = refusal(state, make_net())

    assert str(error) == (
        "net.pt: weights do not fit module 'net':\n"
        "  norm.bias: str in the file, a tensor in the module\n"
        "  enc.weight: shape [5, 2] in the file, [3, 2] in the module\n"
        "  enc.bias: missing in the file\n"
        "  norm.running_mean: missing in the file (it has norm.running_meen)\n"
        "  norm.running_meen: not in the module\n"
        f"  fix: rename = {{old prefix: new prefix}}, {STRICT_OFF}, "
        "skip_mismatched = True for shapes"
    )
    report = error.found
    assert report.missing == ("enc.bias", "norm.running_mean")
    assert report.unexpected == ("norm.running_meen",)
    assert report.mismatched == {"enc.weight": ((5, 2), (3, 2))}
    assert (error.key, error.file) == ("net", FILE)


def test_a_long_table_is_cut_with_a_count():
    error = refusal({}, nn.ModuleList(nn.Linear(1, 1) for _ in range(10)))

    rows = str(error).splitlines()
    assert rows[12:] == [
        "  5.bias: missing in the file",
        "  … and 8 more",
        "  fix: take the file of a module of this kind, or rename = {old prefix: new prefix}",
    ]


def test_keys_of_a_file_are_shown_on_one_short_line():
    state = snapshot(nn.ReLU()) | {"\x1b[2J\n": torch.ones(1), "w" * 500: torch.ones(1)}

    error = refusal(state, nn.ReLU())

    assert str(error).splitlines()[1:3] == [
        r"  '\x1b[2J\n': not in the module",
        f"  {'w' * 100}…: not in the module",
    ]


def test_a_value_of_one_dimension_does_not_fit_one_of_none():
    module = nn.BatchNorm1d(2)
    state = module.state_dict() | {"num_batches_tracked": torch.ones(1, dtype=torch.int64)}

    error = refusal(state, module)

    assert error.found.mismatched == {"num_batches_tracked": ((1,), ())}


def test_a_tensor_that_claims_to_be_huge_is_refused_by_its_shape():
    state = {"weight": torch.ones(1).expand(10**15), "bias": torch.ones(1)}

    error = refusal(state, nn.Linear(1, 1))

    assert "  weight: shape [1000000000000000] in the file, [1, 1] in the module\n" in str(error)


@pytest.mark.parametrize(
    ("value", "row"),
    [
        (torch.ones(1, 1, device="meta"), "a meta tensor, without data, in the file"),
        (torch.ones(1, 1).to_sparse(), "torch.sparse_coo in the file, torch.strided in the module"),
        ([1.0], "list in the file, a tensor in the module"),
    ],
    ids=["meta", "sparse", "list"],
)
def test_a_value_of_another_kind_is_refused_whatever_the_options(value, row):
    state = {"weight": value, "bias": torch.ones(1)}

    error = refusal(state, nn.Linear(1, 1), strict=False, skip_mismatched=True)

    assert str(error) == (
        f"net.pt: weights do not fit module 'net':\n  weight: {row}\n"
        "  fix: take the file of a module of this kind"
    )


def test_a_prefix_before_every_key_is_recognised():
    state = {f"student.{key}": value for key, value in make_net().state_dict().items()}

    error = refusal(state, make_net())

    assert error.fix == "rename = {'student.': ''}"
    assert load(state, make_net(), rename={"student.": ""}).coverage == 100


def test_several_modules_in_one_file_are_not_guessed_at():
    inner = make_net().state_dict()

    error = refusal({"student": inner, "teacher": inner}, make_net())

    assert error.fix == "the weights are one level down: torch.save(content['student'], file)"


def test_a_rename_that_matches_nothing_is_reported_with_the_closest():
    error = refusal(snapshot(make_net()), make_net(), rename={"encc.": "x."})

    assert str(error) == (
        "net.pt: module 'net': rename: no key starts with 'encc.'; there are: enc.weight, "
        "enc.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var, … (1 more)\n"
        "  closest match: enc.\n"
        "  fix: write how keys of the file start, on the left of the rename"
    )


def test_a_rename_that_gives_one_key_twice_is_refused():
    error = refusal(snapshot(make_net()), make_net(), rename={"enc.": "norm."})

    assert str(error) == (
        "net.pt: module 'net': rename gives norm.weight twice\n"
        "  fix: rename fewer prefixes: each key of the file needs a name of its own"
    )


def test_the_fix_for_a_pool_of_ones_own_names_no_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CheckpointManager("ckps", ModulePool.from_modules({"net": nn.Linear(2, 2)})).start()
    other = ModulePool.from_modules({"net": nn.Linear(2, 2, bias=False)})

    with pytest.raises(WeightMismatchError) as caught:
        CheckpointManager("ckps", other).load("last")

    assert str(caught.value) == (
        "ckps/last/net.pt: weights do not fit module 'net':\n"
        "  bias: not in the module\n"
        "  fix: build the module as it was when it was saved, or load(..., strict=False)"
    )


def test_a_name_that_leads_out_of_a_pool_is_not_a_module_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool = ModulePool.from_modules({"net": nn.Linear(1, 1)})
    checkpoints = CheckpointManager("ckps", pool)
    checkpoints.start()

    with pytest.raises(CheckpointNotFoundError) as caught:
        checkpoints.load("last", modules=["../init/net"])

    assert str(caught.value).startswith(
        "ckps/last: pool 'last' has no module '../init/net'; it has: net"
    )


class Raises(nn.Linear):
    """Refuses what it is given, after torch has copied it."""

    def _load_from_state_dict(self, *given):
        super()._load_from_state_dict(*given)
        raise RuntimeError("not me")


def test_a_rollback_continues_past_what_cannot_be_copied_into():
    first, odd, last = make_net(), Raises(2, 2), make_net()
    odd.register_buffer("wide", torch.ones(1).expand(4), persistent=False)
    before = [snapshot(module) for module in (first, odd, last)]
    first.register_load_state_dict_pre_hook(lambda *_: None)
    loads = []
    for module in (first, last, odd):
        state = {key: value + 1 for key, value in module.state_dict().items()}
        loads.append((module, *match(state, module)))

    with pytest.raises(CheckpointError, match="raises RuntimeError: not me"):
        apply_weights(loads)

    after = [snapshot(module) for module in (first, odd, last)]
    assert all(map(is_same, after, before))
