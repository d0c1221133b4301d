"""Going on from the newest commit: weights, best, training state, and what is in nobody's pool."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, PoolReader
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    StoreLockedError,
    WeightMismatchError,
)


def make_pool(*names: str, seed: int = 0) -> ModulePool:
    torch.manual_seed(seed)
    modules: dict[str, nn.Module] = {name: nn.Linear(3, 3) for name in names}
    return ModulePool.from_modules(
        modules | {"cold": nn.BatchNorm1d(3)}, settings={"cold": {"frozen": True}}
    )


def digests(pool: ModulePool) -> dict[str, str]:
    return {name: Content(pool[name].state_dict()).digest_now() for name in pool}


def train(pool: ModulePool) -> None:
    with torch.no_grad():
        for name in pool:
            if not pool.is_frozen(name):
                pool[name].weight.add_(1)


def state_of(epoch: int) -> dict[str, object]:
    return {"step": epoch * 10, "moments": {"net.weight": torch.full((3, 3), float(epoch))}}


@pytest.fixture
def trained(tmp_path) -> tuple[Path, ModulePool]:
    """A run of modules ``net`` and ``old`` with two epochs, the first of which was the best."""
    pool = make_pool("net", "old")
    for name in ("net", "old"):
        nn.init.ones_(pool[name].weight)
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()
        for epoch in (1, 2):
            train(pool)
            checkpoints.commit(
                "last",
                "best",
                f"epoch_{epoch}",
                epoch=epoch,
                step=epoch * 10,
                metrics={"loss": float(epoch)},
                state=state_of(epoch),
            )
    return tmp_path, pool


def test_it_continues_where_the_newest_commit_was(trained):
    folder, before = trained
    pool = make_pool("net", "old", seed=1)

    with CheckpointManager(folder, pool) as checkpoints:
        resumed = checkpoints.resume()

        assert digests(pool) == digests(before)
        assert (resumed.epoch, resumed.step, resumed.metrics) == (2, 20, {"loss": 2.0})
        assert resumed.state is not None
        assert resumed.state["step"] == 20
        assert torch.equal(resumed.state["moments"]["net.weight"], torch.full((3, 3), 2.0))
        assert resumed.orphans == ()
        assert {name: report.coverage for name, report in resumed.reports.items()} == {
            "net": 100.0,
            "old": 100.0,
            "cold": 100.0,
        }
        assert (checkpoints.best.value, checkpoints.best.epoch) == (1.0, 1)
        unchanged = checkpoints.commit("last", epoch=2, step=20)
        checkpoints.wait()
        assert (unchanged.commit, unchanged.bytes_written) == (4, 0)
        train(pool)
        worse = checkpoints.commit("last", "best", "epoch_3", epoch=3, metrics={"loss": 1.5})
        assert not worse.best_moved
    assert PoolReader(folder).pools() == [
        "frzn",
        "init",
        "last",
        "best",
        "epoch_1",
        "epoch_2",
        "epoch_3",
    ]


def test_weights_of_modules_that_are_gone_survive(trained):
    folder, before = trained
    old = digests(before)["old"]
    pool = make_pool("net")

    with CheckpointManager(folder, pool) as checkpoints:
        assert checkpoints.resume().orphans == ("old",)
        for epoch in (3, 4):
            train(pool)
            checkpoints.commit(
                "last", "best", f"epoch_{epoch}", epoch=epoch, metrics={"loss": 1 / epoch}
            )

    pools = readable_records(Layout(folder))[0].pools
    first = pools["epoch_1"].modules["old"]
    assert {name: pools[name].modules["old"] for name in pools if name != "frzn"} == {
        "init": pools["init"].modules["old"],
        "last": old,
        # Of epoch 1, which was the best when there was such a module.
        "best": first,
        "epoch_1": first,
        "epoch_2": old,
        "epoch_3": old,
        "epoch_4": old,
    }
    assert (folder / "last" / "old.pt").is_file()
    both = make_pool("net", "old", seed=2)
    with CheckpointManager(folder, both) as checkpoints:
        checkpoints.resume()
    assert digests(both) == {**digests(pool), "old": old}


def test_a_module_that_the_run_does_not_have_is_refused(trained):
    folder, _ = trained
    pool = make_pool("net", "olt")
    before = digests(pool)
    checkpoints = CheckpointManager(folder, pool)

    with pytest.raises(CheckpointNotFoundError, match="pool 'last' has no module 'olt'") as caught:
        checkpoints.resume()

    assert caught.value.closest == "old"
    assert digests(pool) == before
    with pytest.raises(CheckpointError, match=r"before start\(\)"):
        checkpoints.commit("last", epoch=3)
    CheckpointManager(folder, make_pool("net", "old")).resume()


def test_weights_that_do_not_fit_change_nothing_and_hold_no_lock(trained):
    folder, _ = trained
    torch.manual_seed(1)
    pool = ModulePool.from_modules(
        {"net": nn.Linear(3, 3), "old": nn.Linear(4, 3), "cold": nn.BatchNorm1d(3)},
        settings={"cold": {"frozen": True}},
    )
    before = digests(pool)

    with pytest.raises(WeightMismatchError, match="weights do not fit module 'old'"):
        CheckpointManager(folder, pool).resume()

    assert digests(pool) == before
    CheckpointManager(folder, make_pool("net", "old")).resume()


def test_a_second_writer_is_refused(trained):
    folder, _ = trained
    with CheckpointManager(folder, make_pool("net", "old")) as checkpoints:
        checkpoints.resume()

        with pytest.raises(StoreLockedError):
            CheckpointManager(folder, make_pool("net", "old")).resume()


@pytest.mark.parametrize("is_there", [False, True], ids=["no folder", "empty folder"])
def test_where_nothing_was_saved_there_is_nothing_to_resume_from(tmp_path, is_there):
    folder = tmp_path / "ckps"
    if is_there:
        folder.mkdir()
    checkpoints = CheckpointManager(folder, make_pool("net"))

    with pytest.raises(CheckpointNotFoundError, match="holds no commit to resume from"):
        checkpoints.resume()

    assert folder.exists() == is_there
    assert not list(folder.glob("*"))
    checkpoints.start()
    checkpoints.close()


def flip_in(file: Path, content: bytes) -> None:
    """Flip a bit, and leave size and time as they were: what a disk does."""
    status = file.stat()
    whole = bytearray(file.read_bytes())
    whole[whole.index(content)] ^= 1
    file.chmod(0o644)
    file.write_bytes(whole)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("what", ["weights", "training state"])
def test_where_the_newest_commit_is_damaged_the_one_before_is_whole(trained, caplog, what):
    folder, before = trained
    record = readable_records(Layout(folder))[0]
    digest = record.state if what == "training state" else record.pools["last"].modules["net"]
    content = (
        state_of(2)["moments"]["net.weight"] if what == "training state" else before.net.weight
    )
    assert digest is not None
    flip_in(Layout(folder).object(digest), content.detach().numpy().tobytes())
    if what == "weights":
        for pool in ("last", "epoch_2"):  # the same file, where the disk links
            view = folder / pool / "net.pt"
            if content.detach().numpy().tobytes() in view.read_bytes():
                flip_in(view, content.detach().numpy().tobytes())
    pool = make_pool("net", "old", seed=1)

    with CheckpointManager(folder, pool) as checkpoints:
        resumed = checkpoints.resume()

    assert (resumed.epoch, resumed.step) == (1, 10)
    assert resumed.state is not None
    assert resumed.state["step"] == 10
    assert torch.equal(pool.net.weight, torch.full((3, 3), 2.0))
    assert any("is not whole; going back to the one before" in text for text in caplog.messages)
    assert list(Layout(folder).quarantine.iterdir())


def test_another_monitor_starts_over_and_says_so(trained, caplog):
    folder, _ = trained
    with CheckpointManager(
        folder, make_pool("net", "old"), monitor="accuracy", mode="max"
    ) as checkpoints:
        checkpoints.resume()
        receipt = checkpoints.commit("best", epoch=3, metrics={"accuracy": 0.1})

    assert receipt.best_moved
    assert caplog.messages == [
        "best was decided by loss (min); now accuracy (max) decides, and its first value is best"
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [({1, 2}, "set"), (torch.eye(2).to_sparse(), "sparse")],
    ids=["set", "sparse"],
)
def test_a_training_state_that_would_not_come_back_is_refused(tmp_path, value, kind):
    with CheckpointManager(tmp_path, make_pool("net")) as checkpoints:
        checkpoints.start()

        with pytest.raises(CheckpointError, match=f"the training state: seen is a?.*{kind}"):
            checkpoints.commit("last", epoch=1, state={"seen": value})

        assert checkpoints.commit("last", epoch=1).epoch == 1
    assert readable_records(Layout(tmp_path))[0].number == 2


def test_saving_at_once_or_beside_training_gives_the_same_bytes(tmp_path):
    for asynchronous in (False, True):
        pool = make_pool("net", "old")
        folder = tmp_path / str(asynchronous)
        with CheckpointManager(folder, pool, asynchronous=asynchronous) as checkpoints:
            checkpoints.start()
            for epoch in (1, 2, 3):
                train(pool)
                receipt = checkpoints.commit("last", f"epoch_{epoch}", epoch=epoch)
                assert receipt.durable or asynchronous

    at_once, beside = (
        {
            str(file.relative_to(tmp_path / name)): file.read_bytes()
            for file in (tmp_path / name).rglob("*.pt")
        }
        for name in ("False", "True")
    )
    assert at_once == beside
    assert len(at_once) > 10


def test_each_commit_says_where_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    with CheckpointManager(tmp_path, make_pool("net"), provenance={"note": 1}) as checkpoints:
        checkpoints.start()

    record = json.loads(Layout(tmp_path).record(1).read_bytes())
    assert record["parent"] is None
    assert set(record["provenance"]) == {"modules", "versions", "git_commit", "note"}
    assert set(record["provenance"]["modules"]) == {"net", "cold"}
    assert set(record["provenance"]["versions"]) == {"python", "torch", "pymodules-core"}
