"""The checkpoint manager: pools, best, loading."""

import math

import pytest
import torch
from torch import nn

from pymodules_core import BestTracker, CheckpointManager, ModulePool
from pymodules_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ExistingRunError,
    InvalidNameError,
    UninitializedModuleError,
    WeightMismatchError,
)

pytestmark = pytest.mark.usefixtures("both_ways")


def make_pool(**modules: nn.Module) -> ModulePool:
    return ModulePool.from_modules(
        {"net": nn.Linear(2, 2), "cold": nn.BatchNorm1d(2), **modules},
        settings={"cold": {"frozen": True}},
    )


def files_in(folder):
    """Return what people see; the store behind it has tests of its own."""
    files = [f.relative_to(folder) for f in folder.rglob("*") if f.is_file()]
    return {str(file) for file in files if file.parts[0] != ".store"}


def test_start_saves_frozen_modules_apart_from_the_others(tmp_path):
    checkpoints = CheckpointManager(tmp_path / "ckps", make_pool())

    receipt = checkpoints.start()

    assert receipt.pools == ("frzn", "init", "last")
    assert files_in(tmp_path / "ckps") == {"frzn/cold.pt", "init/net.pt", "last/net.pt"}
    objects = (tmp_path / "ckps" / ".store" / "objects").iterdir()
    assert receipt.bytes_written == sum(file.stat().st_size for file in objects)
    assert receipt.durable


def test_a_file_holds_what_torch_save_writes_of_the_module(tmp_path):
    pool = make_pool()
    CheckpointManager(tmp_path, pool).start()

    for name, file in {"net": "last/net.pt", "cold": "frzn/cold.pt"}.items():
        read = torch.load(tmp_path / file, weights_only=True)
        state = pool[name].state_dict()
        assert (type(read), list(read)) == (type(state), list(state))
        assert read._metadata == state._metadata
        assert all(torch.equal(read[key], state[key]) for key in state)


def test_a_second_start_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CheckpointManager("ckps", make_pool()).start()

    with pytest.raises(ExistingRunError) as caught:
        CheckpointManager("ckps", make_pool()).start()

    assert str(caught.value) == (
        "ckps holds a run already: frzn, init, last\n"
        "  fix: resume() continues it; else choose another folder, or move this one aside"
    )


def test_best_moves_only_when_the_metric_improves(tmp_path):
    pool = make_pool()
    checkpoints = CheckpointManager(tmp_path, pool, monitor="accuracy", mode="max")
    checkpoints.start()

    moved = []
    for epoch, accuracy in enumerate([0.5, 0.4, math.nan, 0.5, 0.6], start=1):
        pool.net.weight.data.fill_(epoch)
        receipt = checkpoints.commit(
            "last", "best", f"epoch_{epoch}", epoch=epoch, metrics={"accuracy": accuracy}
        )
        moved.append(receipt.best_moved)

    checkpoints.wait()
    assert moved == [True, False, False, False, True]
    best = torch.load(tmp_path / "best" / "net.pt", weights_only=True)
    assert best["weight"][0, 0] == 5
    assert (checkpoints.best.value, checkpoints.best.epoch) == (0.6, 5)


@pytest.mark.parametrize(
    ("mode", "min_delta", "values", "taken"),
    [
        ("min", 0.0, [3.0, 3.0, 2.0], [True, False, True]),
        ("min", 0.5, [3.0, 2.6, 2.4], [True, False, True]),
        ("max", 0.5, [1.0, 1.5, 1.6], [True, False, True]),
        ("min", 0.0, [math.nan, math.nan, 7.0], [True, False, True]),
        ("min", 0.0, [1.0, math.inf, -math.inf], [True, False, True]),
    ],
)
def test_a_value_is_better_by_mode_and_min_delta(mode, min_delta, values, taken):
    tracker = BestTracker("m", mode, min_delta)

    found = []
    for epoch, value in enumerate(values):
        found.append(tracker.is_better({"m": value}))
        if found[-1]:
            tracker.take({"m": value}, epoch=epoch)

    assert found == taken


def test_best_without_its_metric_is_refused_before_anything_is_written(tmp_path):
    checkpoints = CheckpointManager(tmp_path, make_pool(), monitor="loss")

    with pytest.raises(CheckpointError) as caught:
        checkpoints.commit("last", "best", epoch=1, metrics={"los": 1.0, "accuracy": 0.5})

    assert str(caught.value) == (
        "train.monitor: 'loss' is not among the metrics: los, accuracy\n"
        "  closest match: los\n"
        '  fix: [train] monitor = "los", or return it from eval_step'
    )
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("name", ["latest", "epoch_0", "epoch_x", "../last", ""])
def test_an_unknown_pool_is_refused(tmp_path, name):
    checkpoints = CheckpointManager(tmp_path, make_pool())

    with pytest.raises(InvalidNameError, match="unknown checkpoint pool"):
        checkpoints.commit(name, epoch=1)


@pytest.mark.parametrize("name", ["frzn", "init"])
def test_what_start_writes_is_never_committed_again(tmp_path, name):
    checkpoints = CheckpointManager(tmp_path, make_pool())

    with pytest.raises(CheckpointError, match=f"pool '{name}' is written by start"):
        checkpoints.commit(name, epoch=1)


@pytest.mark.parametrize("pools", [(), ("last",)], ids=["no pool", "before start"])
def test_a_commit_that_has_no_place_is_refused(tmp_path, pools):
    CheckpointManager(tmp_path, make_pool()).start()
    before = files_in(tmp_path)
    another = CheckpointManager(tmp_path, make_pool())

    with pytest.raises(CheckpointError) as caught:
        another.commit(*pools, epoch=1)

    assert str(caught.value) == (
        f"nothing can be committed to {tmp_path} before start()\n"
        "  fix: call start() once, which writes frzn, init and last; or resume() to continue"
        if pools
        else 'commit() names no pool\n  fix: commit("last", epoch=epoch)'
    )
    assert files_in(tmp_path) == before


def test_loading_puts_weights_back_into_the_live_modules(tmp_path):
    pool = make_pool()
    checkpoints = CheckpointManager(tmp_path, pool)
    checkpoints.start()
    weight, expected = pool.net.weight, pool.net.weight.detach().clone()
    pool.net.weight.data.zero_()

    reports = checkpoints.load("last")

    assert pool.net.weight is weight
    assert torch.equal(weight, expected)
    assert reports["net"].coverage == 100
    assert reports["net"].loaded == ("weight", "bias")


def test_loading_is_all_or_nothing_over_modules(tmp_path):
    small = ModulePool.from_modules({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    CheckpointManager(tmp_path, small).start()
    other = ModulePool.from_modules({"a": nn.Linear(2, 2), "b": nn.Linear(3, 2)})
    before = other.a.weight.detach().clone()

    with pytest.raises(WeightMismatchError) as caught:
        CheckpointManager(tmp_path, other).load("last")

    assert "b.pt: weights do not fit module 'b':\n" in str(caught.value)
    assert "  weight: shape [2, 2] in the file, [2, 3] in the module" in str(caught.value)
    assert torch.equal(other.a.weight, before)


def test_loading_a_pool_that_is_not_there_lists_those_that_are(tmp_path):
    checkpoints = CheckpointManager(tmp_path, make_pool())
    checkpoints.start()

    with pytest.raises(InvalidNameError) as unknown:
        checkpoints.load("bst")
    with pytest.raises(CheckpointNotFoundError) as missing:
        checkpoints.load("last", modules=["nett"])

    assert str(unknown.value) == ("unknown checkpoint pool 'bst'; there are: frzn, init, last")
    assert str(missing.value).endswith(
        "last: pool 'last' has no module 'nett'; it has: net\n"
        "  closest match: net\n"
        "  fix: write 'net'"
    )


def test_weights_that_settings_ask_for_must_be_loaded_before_the_start(tmp_path):
    pool = ModulePool.from_modules(
        {"net": nn.Linear(1, 1)},
        settings={"net": {"load_weights_from_ckp": {"ckp_name": "net.pt"}}},
    )

    with pytest.raises(CheckpointError) as caught:
        CheckpointManager(tmp_path, pool).start()

    assert str(caught.value) == (
        "initial weights are not loaded yet for: net\n"
        "  fix: call pymodules_core.load_initial_weights(pool) first"
    )


def test_a_lazy_module_is_named_before_anything_is_written(tmp_path):
    pool = make_pool(lazy=nn.LazyLinear(3))

    with pytest.raises(UninitializedModuleError) as caught:
        CheckpointManager(tmp_path, pool).start()

    assert str(caught.value).startswith(
        "module 'lazy' has lazy parameters without a shape: weight, bias\n  fix: run one batch"
    )
    assert files_in(tmp_path) == set()


def test_a_module_without_parameters_is_saved(tmp_path):
    CheckpointManager(tmp_path, make_pool(empty=nn.Identity())).start()

    assert torch.load(tmp_path / "last" / "empty.pt", weights_only=True) == {}


def test_a_tensor_that_views_a_large_storage_is_saved_small(tmp_path):
    module = nn.Module()
    module.register_buffer("row", torch.zeros(1000, 1000)[3])
    pool = ModulePool.from_modules({"net": module})

    CheckpointManager(tmp_path, pool).start()

    assert (tmp_path / "last" / "net.pt").stat().st_size < 10_000


def test_tied_parameters_are_written_once_and_stay_tied(tmp_path):
    module = nn.ModuleList([nn.Linear(200, 200, bias=False), nn.Linear(200, 200, bias=False)])
    module[1].weight = module[0].weight
    pool = ModulePool.from_modules({"net": module})
    checkpoints = CheckpointManager(tmp_path, pool)

    checkpoints.start()

    state = torch.load(tmp_path / "last" / "net.pt", weights_only=True)
    assert state["0.weight"].data_ptr() == state["1.weight"].data_ptr()
    assert (tmp_path / "last" / "net.pt").stat().st_size < 200 * 200 * 4 * 1.1
    checkpoints.load("last")
    assert module[1].weight is module[0].weight


# torch's own compiler still imports what torch deprecates.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
def test_a_compiled_wrapper_leaves_no_prefix(tmp_path):
    pool = ModulePool.from_modules({"net": torch.compile(nn.Linear(2, 2))})

    CheckpointManager(tmp_path, pool).start()

    state = torch.load(tmp_path / "last" / "net.pt", weights_only=True)
    assert list(state) == ["weight", "bias"]


def test_a_child_called_module_keeps_its_name(tmp_path):
    net = nn.ModuleDict({"module": nn.Linear(2, 2)})
    CheckpointManager(tmp_path, ModulePool.from_modules({"net": net})).start()

    state = torch.load(tmp_path / "last" / "net.pt", weights_only=True)

    assert list(state) == ["module.weight", "module.bias"]


def test_a_failed_write_is_reported_and_keeps_what_was_there(tmp_path, monkeypatch):
    pool = make_pool()
    checkpoints = CheckpointManager(tmp_path, pool)
    checkpoints.start()
    old = (tmp_path / "last" / "net.pt").read_bytes()
    # A full disk cannot be had here without mounting one: the system call fails instead.
    monkeypatch.setattr("os.fsync", _raise_no_space)

    pool.net.weight.data.zero_()
    checkpoints.commit("last", epoch=1)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.wait()

    assert str(caught.value).startswith(
        f"{tmp_path}: cannot be written: No space left on device; it needs up to "
    )
    assert (tmp_path / "last" / "net.pt").read_bytes() == old
    assert files_in(tmp_path) == {"frzn/cold.pt", "init/net.pt", "last/net.pt"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")

    with pytest.raises(CheckpointError) as caught:
        CheckpointManager(tmp_path / "data" / "module_ckps", make_pool()).start()

    assert str(caught.value) == (
        f"{tmp_path}/data/module_ckps: cannot be written: Not a directory\n"
        "  fix: move away what is in its place; checkpoints saved before are intact"
    )


def test_a_best_that_could_not_be_written_is_best_at_the_next_try(tmp_path, monkeypatch):
    checkpoints = CheckpointManager(tmp_path, make_pool())
    checkpoints.start()
    with monkeypatch.context() as full_disk:
        full_disk.setattr("os.fsync", _raise_no_space)
        checkpoints.commit("best", epoch=1, metrics={"loss": 1.0})
        with pytest.raises(CheckpointError):
            checkpoints.wait()

    receipt = checkpoints.commit("best", epoch=2, metrics={"loss": 1.0})

    assert receipt.best_moved
    assert checkpoints.best.epoch == 2


def _raise_no_space(_: int) -> None:
    raise OSError(28, "No space left on device")
