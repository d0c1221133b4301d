"""What opening and repairing a store do where more is wrong than one commit can make good."""

from pathlib import Path

import pytest
import torch
from store_cases import LinkingDisk
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, PoolReader
from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.checkpoints.store.recovery import Recovery
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.checkpoints.tools.pruning import prune
from pymodules_core.checkpoints.tools.repair import repair
from pymodules_core.errors import CheckpointFileError

STATE = {"moments": torch.full((7,), 3.0)}


@pytest.fixture(autouse=True)
def no_reflinks(monkeypatch):
    """Let views be links, so that no copy can make good what is damaged."""
    monkeypatch.setattr(Disk, "clone", LinkingDisk.clone)


def make_pool() -> ModulePool:
    torch.manual_seed(0)
    return ModulePool.from_modules(
        {"net": nn.Linear(3, 3), "teacher": nn.Linear(2, 2)},
        settings={"teacher": {"frozen": True}},
    )


def train(folder: Path, epochs: int = 2, **more: object) -> ModulePool:
    pool = make_pool()
    with CheckpointManager(folder, pool, **more) as checkpoints:
        checkpoints.start()
        for epoch in range(1, epochs + 1):
            pool.net.weight.data.fill_(epoch)
            checkpoints.commit(
                "last",
                "best",
                f"epoch_{epoch}",
                epoch=epoch,
                metrics={"loss": 1 / epoch},
                state={**STATE, "epoch": epoch},
            )
    return pool


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)


def test_where_no_commit_is_whole_nothing_is_lost_however_often_it_is_opened(tmp_path):
    train(tmp_path)
    layout = Layout(tmp_path)
    (teacher,) = readable_records(layout)[0].pools["frzn"].modules.values()
    damage(layout.object(teacher))
    names = {file.name for file in layout.objects.iterdir()} - {layout.object(teacher).name}
    numbers = {file.name for file in layout.commits.iterdir()}

    for _ in range(3):
        with pytest.raises(CheckpointFileError, match=r"no commit of .* is whole") as caught:
            CheckpointManager(tmp_path, make_pool()).resume()

    assert caught.value.fix == "pymodules ckpt repair saves what is whole"
    assert {file.name for file in layout.objects.iterdir()} == names
    assert {file.name for file in layout.commits.iterdir()} == numbers


def test_a_repair_keeps_state_best_and_all_that_is_whole(tmp_path):
    train(tmp_path)
    layout = Layout(tmp_path)
    before = readable_records(layout)[0]
    (teacher,) = before.pools["frzn"].modules.values()
    damage(layout.object(teacher))

    assert repair(tmp_path).lost == ["frzn/teacher"]

    after = readable_records(layout)[0]
    assert (after.state, after.best, after.epoch) == (before.state, before.best, 2)
    assert {name: after.pools[name].modules for name in ("last", "best", "epoch_1")} == {
        name: before.pools[name].modules for name in ("last", "best", "epoch_1")
    }
    pool = ModulePool.from_modules({"net": nn.Linear(3, 3)})
    with CheckpointManager(tmp_path, pool) as checkpoints:
        assert checkpoints.resume().state["epoch"] == 2
    assert torch.equal(pool.net.weight, torch.full((3, 3), 2.0))


def test_what_only_a_damaged_commit_names_is_put_aside_and_not_deleted(tmp_path, caplog):
    train(tmp_path)
    layout = Layout(tmp_path)
    newest = readable_records(layout)[0]
    damage(layout.object(newest.state))
    weights = newest.pools["last"].modules["net"]

    with CheckpointManager(tmp_path, make_pool()) as checkpoints:
        assert checkpoints.resume().epoch == 1

    aside = {file.name.partition("-")[2] for file in layout.quarantine.iterdir()}
    assert aside >= {f"{weights}.pt", f"{newest.state}.pt", f"{newest.number:08}.json"}
    assert not (tmp_path / "epoch_2").exists()
    assert f"pool epoch_2 was of commit {newest.number} alone" in caplog.messages


def test_a_record_that_cannot_be_read_takes_nothing_with_it(tmp_path):
    train(tmp_path)
    layout = Layout(tmp_path)
    newest = readable_records(layout)[0]
    damage(layout.record(newest.number))
    objects = {file.name for file in layout.objects.iterdir()}

    with CheckpointManager(tmp_path, make_pool()) as checkpoints:
        assert checkpoints.resume().epoch == 1

    aside = {file.name.partition("-")[2] for file in layout.quarantine.iterdir()}
    left = {file.name for file in layout.objects.iterdir()}
    assert left | aside >= objects
    assert f"{newest.number:08}.json" in aside


def test_where_no_record_can_be_read_a_repair_takes_the_views_and_deletes_nothing(tmp_path):
    train(tmp_path)
    layout = Layout(tmp_path)
    state = readable_records(layout)[0].state
    objects = {file.name for file in layout.objects.iterdir()}
    for record in layout.commits.iterdir():
        damage(record)

    assert repair(tmp_path).lost == []

    aside = {file.name.partition("-")[2] for file in layout.quarantine.iterdir()}
    left = {file.name for file in layout.objects.iterdir()}
    assert left | aside >= objects
    assert f"{state}.pt" in aside
    pool = make_pool()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        assert checkpoints.resume().state is None
    assert torch.equal(pool.net.weight, torch.full((3, 3), 2.0))


def test_a_lost_best_is_reported_and_the_next_is_best(tmp_path):
    train(tmp_path)
    pool = make_pool()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.resume()
        for epoch in (3, 4, 5):
            pool.net.weight.data.fill_(epoch)
            checkpoints.commit("last", epoch=epoch, metrics={"loss": 9.0})
    layout = Layout(tmp_path)
    pools = readable_records(layout)[0].pools
    best = pools["best"].modules["net"]
    layout.object(best).unlink()
    for pool in ("best", "epoch_2", "last"):
        (tmp_path / pool / "net.pt").unlink()

    with pytest.raises(CheckpointFileError, match="is lost: a commit names it"):
        PoolReader(tmp_path).read("best")


def test_a_best_that_a_repair_could_not_save_makes_room_for_the_next(tmp_path):
    train(tmp_path)
    layout = Layout(tmp_path)
    pool = make_pool()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.resume()
        for epoch in (3, 4):
            pool.net.weight.data.fill_(epoch)
            checkpoints.commit("last", epoch=epoch)
    prune(tmp_path, ["epoch_2"])
    damage(layout.object(readable_records(layout)[0].pools["best"].modules["net"]))

    assert repair(tmp_path).lost == ["best/net"]

    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.resume()
        receipt = checkpoints.commit("last", "best", epoch=5, metrics={"loss": 0.9})
    assert receipt.best_moved
    assert (tmp_path / "best" / "net.pt").is_file()


def test_a_pool_that_is_a_link_to_elsewhere_loses_nothing_there(tmp_path):
    folder, archive = tmp_path / "ckps", tmp_path / "archive"
    train(folder)
    (folder / "best").rename(archive)
    (folder / "best").symlink_to(archive)
    pool = make_pool()

    with CheckpointManager(folder, pool) as checkpoints:
        checkpoints.resume()
        pool.net.weight.data.fill_(7)
        checkpoints.commit("last", "best", epoch=3, metrics={"loss": 0.1})

    assert [file.name for file in archive.iterdir()] == ["net.pt"]
    assert not (folder / "best").is_symlink()
    assert torch.load(folder / "best" / "net.pt")["weight"][0, 0] == 7
    with CheckpointManager(folder, pool) as checkpoints:
        assert checkpoints.resume().epoch == 3


def test_a_file_that_somebody_put_into_a_pool_survives_a_crash_that_drops_the_pool(
    tmp_path, monkeypatch
):
    pool = train(tmp_path, epochs=1, keep_epochs=1)

    def crash(*_: object) -> None:
        raise OSError(5, "as if it had ended here")

    checkpoints = CheckpointManager(tmp_path, pool, keep_epochs=1, asynchronous=False)
    checkpoints.resume()
    (tmp_path / "epoch_1" / "notes.txt").write_text("mine")
    pool.net.weight.data.fill_(8)
    with monkeypatch.context() as crashing:
        crashing.setattr(Recovery, "rescue_edits", crash)
        crashing.setattr(Store, "settle", lambda _: None)
        with pytest.raises(ValueError, match="cannot be written"):
            checkpoints.commit("last", "epoch_2", epoch=2)
    checkpoints.close()

    with CheckpointManager(tmp_path, pool) as again:
        assert again.resume().epoch == 2

    assert not (tmp_path / "epoch_1").exists()
    notes = [file.read_text() for file in Layout(tmp_path).quarantine.glob("*notes.txt")]
    assert notes == ["mine"]


@pytest.mark.parametrize(
    "tool", [repair, lambda path: prune(path, ["epoch_1"])], ids=["repair", "prune"]
)
def test_tools_continue_making_views_as_they_were(tmp_path, tool):
    train(tmp_path, link="copy")
    (tmp_path / "best" / "net.pt").unlink()

    tool(tmp_path)

    assert {file.stat().st_nlink for file in tmp_path.glob("*/*.pt")} == {1}
    assert readable_records(Layout(tmp_path))[0].link == "copy"


def test_weights_that_two_commits_share_and_lose_leave_those_before(tmp_path, caplog):
    pool = make_pool()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start(state={"step": 0})
        for epoch in (1, 2, 3):
            pool.net.weight.data.fill_(epoch)
            # As a run does it, before and after the evaluation.
            checkpoints.commit("last", epoch=epoch, state={"step": epoch * 10})
            checkpoints.commit("last", epoch=epoch, state={"step": epoch * 10 + 1})
    layout = Layout(tmp_path)
    assert len(readable_records(layout)) == 3
    damage(layout.object(readable_records(layout)[0].pools["last"].modules["net"]))

    with CheckpointManager(tmp_path, make_pool()) as checkpoints:
        resumed = checkpoints.resume()

    assert (resumed.epoch, resumed.state["step"]) == (2, 21)
    assert "commit 6" in caplog.text


def test_a_file_that_somebody_replaced_is_not_read_and_is_put_aside_by_the_next_commit(
    tmp_path, caplog
):
    pool = train(tmp_path)
    file = tmp_path / "last" / "net.pt"
    mine = {"weight": torch.full((3, 3), 9.0), "bias": torch.zeros(3)}
    torch.save(mine, tmp_path / "mine.pt")
    (tmp_path / "mine.pt").replace(file)

    with CheckpointManager(tmp_path, pool) as checkpoints:
        assert PoolReader(tmp_path).read("last")["net"].state["weight"][0, 0] == 2
        checkpoints.resume()

    [aside] = Layout(tmp_path).quarantine.iterdir()
    assert torch.load(aside)["weight"][0, 0] == 9
    assert torch.load(file)["weight"][0, 0] == 2
    assert f"{file} is damaged, or not as a run wrote it; it is now {aside}" in caplog.messages


def test_a_file_that_somebody_saved_over_in_a_run_is_put_aside_by_the_next_commit(tmp_path, caplog):
    pool = make_pool()
    with CheckpointManager(tmp_path, pool, link="copy") as checkpoints:
        checkpoints.start()
        checkpoints.wait()
        file = tmp_path / "last" / "net.pt"
        file.chmod(0o644)
        file.write_bytes(b"mine")
        pool.net.weight.data.fill_(3)
        checkpoints.commit("last", epoch=1)

    [aside] = Layout(tmp_path).quarantine.iterdir()
    assert aside.read_bytes() == b"mine"
    assert torch.load(file)["weight"][0, 0] == 3
    assert f"{file} is damaged, or not as a run wrote it; it is now {aside}" in caplog.messages


def test_weights_that_somebody_saved_over_through_a_link_are_never_taken_for_ours(tmp_path, caplog):
    train(tmp_path)
    file = tmp_path / "last" / "net.pt"
    file.chmod(0o644)
    torch.save({"weight": torch.full((3, 3), 9.0), "bias": torch.zeros(3)}, file)

    assert PoolReader(tmp_path).read("last")["net"].state["weight"][0, 0] == 1

    assert "read instead: last of commit 2, epoch 1" in caplog.text
