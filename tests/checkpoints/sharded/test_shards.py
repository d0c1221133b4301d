"""Modules in shards: what processes write of them is read as if one had written it."""

import shutil
import subprocess
import warnings
from pathlib import Path

import attrs
import pytest
import shard_cases
import torch
from rank_cases import launch, run_script
from safetensors import safe_open
from shard_cases import FULL, Net, damage, outcomes_of
from support import write_experiment
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load

from pymodules_core import (
    CheckpointManager,
    ModulePool,
    PoolReader,
    load_initial_weights,
    read_state_dict,
)
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import read_record, readable_records
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.checkpoints.tools.pruning import plan_pruning, prune
from pymodules_core.checkpoints.tools.repair import repair
from pymodules_core.cli.main import run
from pymodules_core.errors import CheckpointFileError

SCRIPT = Path(shard_cases.__file__)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_script(
        2, SCRIPT, str(folder), "pools", "retention", "extra_state", "faults", "kinds", "gathered"
    )
    return folder


@pytest.fixture(scope="module")
def by_three(by_two, tmp_path_factory) -> Path:
    """Three processes that write, and that resume from what two wrote."""
    folder = tmp_path_factory.mktemp("three")
    (folder / "resume").mkdir()
    copy(by_two / "pools" / "ckps", folder / "resume" / "ckps")
    run_script(3, SCRIPT, str(folder), "pools", "resume")
    return folder


@pytest.fixture
def pools(by_two, tmp_path) -> Path:
    """The pools that two processes wrote, to be changed."""
    copy(by_two / "pools" / "ckps", tmp_path / "ckps")
    return tmp_path / "ckps"


def copy(source: Path, target: Path) -> None:
    # With its hard links, which shutil.copytree would not keep.
    subprocess.run(["cp", "-a", source, target], check=True)


def check_same(found, expected) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape), key
            assert torch.equal(found[key], value), key
    assert found["_extra_state"]["seen"] == 3
    assert found["embed.weight"] is found["head.weight"]
    assert found["narrow.weight"] is found["mate.weight"]
    assert found._metadata["norm"] == {"version": 2}


@pytest.mark.parametrize("count", ["two", "three"])
def test_one_process_reads_what_several_wrote(by_two, by_three, count):
    folder = (by_two if count == "two" else by_three) / "pools"
    full = torch.load(folder / FULL, weights_only=True)

    for pool in ("last", "best", "epoch_1"):
        check_same(PoolReader(folder / "ckps").read(pool)["net"].state, full)


def test_what_did_not_change_is_not_written_again(by_two):
    first, second = outcomes_of(by_two / "pools")

    assert first["first"] > 0
    assert (first["again"], second["again"]) == (0, 0)


def test_equal_content_in_equal_parts_is_one_object(by_two):
    digests = {
        tuple(readable_records(Layout(by_two / name / "ckps"))[-1].pools["init"].modules.values())
        for name in ("pools", "retention", "faults")
    }

    assert len(digests) == 1


def test_another_number_of_processes_continues(by_two, by_three):
    full = torch.load(by_two / "pools" / FULL, weights_only=True)
    found = torch.load(by_three / "resume" / "resumed.pt", weights_only=True)

    for key, value in full.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found["net"][key], value), key
    assert found["parts"]
    assert torch.equal(found["exp_avg"], full["embed.weight"] * 2)
    assert found["step"] == 3


def test_one_process_continues(pools, by_two):
    full = torch.load(by_two / "pools" / FULL, weights_only=True)
    net = Net()
    with CheckpointManager(pools, ModulePool.from_modules({"net": net})) as checkpoints:
        resumed = checkpoints.resume()

        slots = resumed.module_states["net"]["main"]["net.embed.weight"]
        assert torch.equal(slots["exp_avg"], full["embed.weight"] * 2)
        assert torch.equal(net.embed.weight, full["embed.weight"])
        checkpoints.commit("last", epoch=2)
    assert (pools / "last" / "net.pt").is_file()
    assert (pools / "best" / "net" / "index.pt").is_file()


def test_the_same_module_without_shards_is_the_same(by_two):
    full = torch.load(by_two / "gathered" / FULL, weights_only=True)

    check_same(torch.load(by_two / "gathered/ckps/last/net.pt", weights_only=True), full)


def test_parts_may_be_columns_or_copies(by_two):
    for name in ("columns", "copies"):
        full = torch.load(by_two / "kinds" / f"{name}.pt", weights_only=True)
        found = PoolReader(by_two / "kinds" / name).read("last")["net"].state

        assert found.keys() == full.keys()
        assert all(torch.equal(found[key], value) for key, value in full.items())


def test_a_dtype_that_shards_cannot_hold_is_refused_by_all(by_two):
    for outcome in outcomes_of(by_two / "kinds"):
        assert outcome["wide"] == (
            "weight is complex128, which shards cannot hold\n"
            "  fix: sharded = false for this module: plain files hold every dtype"
        )
    assert not list((by_two / "kinds" / "wide" / ".store" / "commits").iterdir())


def test_shards_open_in_safetensors_and_in_torch(by_two):
    folder = by_two / "pools/ckps/last/net"
    full = torch.load(by_two / "pools" / FULL, weights_only=True)
    names = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as shard:
            names |= set(shard.keys())
    state = {name: torch.zeros_like(full[name]) for name in names}
    with warnings.catch_warnings(category=UserWarning, action="ignore"):  # of one process alone
        load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)

    assert "embed.weight" in names
    assert all(torch.equal(value, full[name]) for name, value in state.items())


def test_no_file_of_a_store_can_be_written_to(by_two):
    files = list((by_two / "pools/ckps/.store/objects").iterdir())

    assert files
    assert {oct(file.stat().st_mode & 0o222) for file in files} == {"0o0"}


def test_what_no_commit_needs_goes_with_all_its_shards(by_two):
    layout = Layout(by_two / "retention" / "ckps")
    records = readable_records(layout)
    used = {digest for record in records for digest in record.used_digests()}

    assert {path.name.removesuffix(".pt") for path in layout.objects.iterdir()} == used
    assert sorted(path.name for path in layout.path.glob("epoch_*")) == ["epoch_4"]


def test_a_disk_that_refuses_is_reported_and_the_next_commit_is_whole(by_two):
    first, second = outcomes_of(by_two / "faults")

    assert first["the disk of the record"].startswith("CheckpointError: cannot be written: No sp")
    assert first["the disk of a shard"].startswith(
        "RankFailedError: process 1 failed: OSError: [Errno 28]"
    )
    assert second["the disk of a shard"] == (
        "CheckpointError: cannot be written: No space left on device"
    )
    assert (first["left of the disk of a shard"], second["left of the disk of a shard"]) == (0, 0)
    for name in ("the disk of the record", "the disk of a shard", "damage"):
        assert (first[f"after {name}"], second[f"after {name}"]) == ("whole", "whole")


def test_a_damaged_shard_is_written_again_while_its_content_is_there(by_two):
    folder = by_two / "faults"
    full = torch.load(folder / FULL, weights_only=True)

    assert verify_store(Layout(folder / "ckps"), digest_of_file).damages == []
    check_same(PoolReader(folder / "ckps").read("last")["net"].state, full)
    assert list((folder / "ckps/.store/quarantine").iterdir())


def test_a_process_that_is_killed_in_its_shard_leaves_the_commit_before(tmp_path):
    result = launch(2, str(SCRIPT), str(tmp_path), "killed")
    folder = tmp_path / "killed"
    full = torch.load(folder / FULL, weights_only=True)

    assert result.returncode != 0
    check_same(PoolReader(folder / "ckps").read("last")["net"].state, full)
    layout = Layout(folder / "ckps")
    assert list(layout.stage.rglob("shard*"))
    store = Store(layout)
    store.close()
    assert store.record.number == 1
    assert not list(layout.stage.iterdir())
    assert not layout.quarantine.exists()
    assert verify_store(layout, digest_of_file).damages == []


def test_a_flipped_bit_is_found_and_what_it_touches_is_named(pools, capsys):
    record = readable_records(Layout(pools))[0]
    (part, *_) = record.objects[record.pools["last"].modules["net"]].parts.values()
    damage(Layout(pools).object(part))

    with pytest.raises(CheckpointFileError, match="is damaged: its bytes are not those") as caught:
        PoolReader(pools).read("best")
    assert caught.value.file == Layout(pools).object(part)
    assert run(["ckpt", "verify", str(pools)]) == 1
    assert "it is part of best/net, epoch_1/net, last/net" in capsys.readouterr().err


def test_a_missing_shard_is_found_and_what_it_touches_is_named(pools, capsys):
    record = readable_records(Layout(pools))[0]
    (part, *_) = record.objects[record.pools["last"].modules["net"]].parts.values()
    Layout(pools).object(part).unlink()

    with pytest.raises(CheckpointFileError, match="is lost: a commit names it") as caught:
        PoolReader(pools).read("best")
    assert caught.value.file == Layout(pools).object(part)
    assert run(["ckpt", "verify", str(pools)]) == 1
    assert f"{part}.pt: is missing; it is part of best/net" in capsys.readouterr().err


def test_a_lost_shard_is_made_again_from_a_view(pools, by_two):
    record = readable_records(Layout(pools))[0]
    (part, *_) = record.objects[record.pools["last"].modules["net"]].parts.values()
    Layout(pools).object(part).unlink()

    assert repair(pools).lost == []

    full = torch.load(by_two / "pools" / FULL, weights_only=True)
    check_same(PoolReader(pools).read("last")["net"].state, full)
    assert verify_store(Layout(pools), digest_of_file).damages == []


def test_views_are_made_again_where_a_shard_of_them_is_gone(pools):
    for file in (pools / "best" / "net").iterdir():
        file.unlink()
    (pools / "best" / "net").rmdir()

    Store(Layout(pools)).close()

    assert verify_store(Layout(pools), digest_of_file).damages == []


def test_what_somebody_puts_among_shards_is_reported_and_put_aside(pools):
    (pools / "last" / "net" / "notes.txt").write_text("mine")
    (pools / "last" / "link").symlink_to(pools)
    found = verify_store(Layout(pools), digest_of_file).damages
    assert [damage.path.name for damage in found] == ["link", "notes.txt"]

    Store(Layout(pools)).close()

    names = {path.name for path in (pools / ".store" / "quarantine").iterdir()}
    assert {name.split("-", 1)[1] for name in names} == {"notes.txt", "link"}
    assert verify_store(Layout(pools), digest_of_file).damages == []


def test_it_is_exported_as_one_plain_file(pools, by_two, tmp_path):
    full = torch.load(by_two / "pools" / FULL, weights_only=True)

    assert run(["ckpt", "export", str(pools), "best", "--to", str(tmp_path), "--format", "pt"]) == 0

    check_same(torch.load(tmp_path / "net.pt", weights_only=True), full)


def test_every_command_that_looks_at_pools_knows_it(pools, capsys):
    assert run(["ckpt", "show", str(pools), "last"]) == 0
    assert f"{pools / 'last' / 'net'}\n" in capsys.readouterr().out
    assert run(["ckpt", "diff", str(pools), "last", "best"]) == 0
    assert capsys.readouterr().out == "net: same\n"
    assert run(["ckpt", "diff", str(pools), "init", "best"]) == 0
    assert "10 of 17 tensors changed" in capsys.readouterr().out
    assert run(["ckpt", "ls", str(pools)]) == 0
    files = list((pools / "last").rglob("*.*"))
    size = sum(file.stat().st_size for file in files)
    shown = capsys.readouterr().out
    assert f"last     1      3     -        1        {size / 1000:.1f} kB" in shown


def test_what_pruning_frees_is_what_no_other_pool_needs(by_two, tmp_path):
    copy(by_two / "extra_state" / "ckps", tmp_path / "ckps")
    layout = Layout(tmp_path / "ckps")
    store = Store(layout)
    store.commit(lambda newest: attrs.evolve(newest, number=newest.number + 1), keep_before=False)
    store.close()
    before = sum(file.stat().st_size for file in layout.objects.iterdir())
    plan = plan_pruning(layout.path, ["epoch_1"], keep_epochs=None, needed={})

    prune(layout.path, plan.pools)

    after = sum(file.stat().st_size for file in layout.objects.iterdir())
    assert 0 < plan.freed_bytes == before - after
    assert PoolReader(layout.path).read("epoch_2")["net"].state["_extra_state"]["seen"] == 2
    assert verify_store(layout, digest_of_file).damages == []


def test_another_experiment_starts_from_it(by_two, home):
    path = write_experiment(home, "giver")
    (path / "data").mkdir()
    copy(by_two / "pools" / "ckps", path / "data" / "module_ckps")
    source = {"exp_name": "giver", "ckp_pool_name": "best", "module_name": "net"}
    taker = write_experiment(
        home,
        "taker",
        modules={
            "net": "from shard_cases import Net\n\nmodule = Net()\n"
            f"settings = {{'load_weights_from_exp': {source}}}\n"
        },
    )
    pool = ModulePool.discover(taker)

    (report,) = load_initial_weights(pool)

    assert report.is_complete
    full = torch.load(by_two / "pools" / FULL, weights_only=True)
    assert torch.equal(pool.net.embed.weight, full["embed.weight"])
    with CheckpointManager(taker / "data" / "module_ckps", pool) as checkpoints:
        checkpoints.start()
    assert (taker / "data/module_ckps/init/net.pt").is_file()


def test_a_copied_pool_is_read_without_its_store(pools, by_two, tmp_path, capsys):
    full = torch.load(by_two / "pools" / FULL, weights_only=True)
    shutil.copytree(pools / "best", tmp_path / "copy" / "best")

    reader = PoolReader(tmp_path / "copy")

    assert reader.modules("best") == ["net"]
    check_same(reader.read("best")["net"].state, full)
    assert run(["ckpt", "verify", str(tmp_path / "copy")]) == 0
    assert run(["ckpt", "ls", str(tmp_path / "copy")]) == 0
    assert "best  -      -     -        1 " in capsys.readouterr().out


def test_a_copied_folder_with_a_wrong_or_missing_shard_is_refused(pools, tmp_path):
    shutil.copytree(pools / "best", tmp_path / "best")
    first, second = sorted((tmp_path / "best" / "net").glob("shard*"))
    damage(first)

    with pytest.raises(CheckpointFileError, match="is damaged, or not the shard") as caught:
        read_state_dict(tmp_path / "best" / "net")
    assert caught.value.file == first

    shutil.copy(pools / "best" / "net" / first.name, first)
    second.unlink()
    with pytest.raises(CheckpointFileError, match=r"is missing, and index\.pt") as caught:
        read_state_dict(tmp_path / "best" / "net")
    assert caught.value.file == second


def test_a_store_without_a_record_is_taken_from_its_views(pools, by_two):
    for file in (pools / ".store" / "commits").iterdir():
        file.unlink()

    assert repair(pools).lost == []

    full = torch.load(by_two / "pools" / FULL, weights_only=True)
    check_same(PoolReader(pools).read("best")["net"].state, full)


def test_a_record_says_its_format_by_what_it_needs(pools, tmp_path):
    with CheckpointManager(tmp_path / "plain", ModulePool.from_modules({"a": Net()})) as plain:
        plain.start()
    new, old = list[Path](), list[Path]()
    for folder, found in ((pools, new), (tmp_path / "plain", old)):
        found.append(Layout(folder).record(readable_records(Layout(folder))[0].number))

    assert b'"format":2' in new[0].read_bytes()
    text = old[0].read_bytes()
    assert b'"format":1' in text
    assert b"module_states" not in text
    assert b"parts" not in text
    assert read_record(old[0]).module_states == {}
