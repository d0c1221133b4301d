"""What a view holds is known by digests: times and inodes only hint at somebody else's edit."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from store_cases import RUNGS, FaultyDisk, check_shown, commit, images, open_store
from torch import nn

from pymodules_core import BEST, LAST, CheckpointManager, ModulePool
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.store import recovery, view_notes
from pymodules_core.checkpoints.store.checksums import checksum_of_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.checkpoints.store.view_notes import Stamp
from pymodules_core.checkpoints.store.views import view_files
from pymodules_core.checkpoints.tools.repair import repair

SECOND_NS = 1_700_000_000 * 10**9


class CoarseDisk:
    """A disk on which all files are written within one second, and times are whole seconds."""

    def __init__(self, disk: Any) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def shape(self, descriptor: int, *, size_bytes: int) -> None:
        self._disk.shape(descriptor, size_bytes=size_bytes)
        os.utime(descriptor, ns=(SECOND_NS, SECOND_NS))

    def clone(self, source: Path, target: Path) -> None:
        self._disk.clone(source, target)
        os.utime(target, ns=(SECOND_NS, SECOND_NS))


def forget_stamps(monkeypatch) -> None:
    """Let ``stat`` tell files of one size never apart, as where inodes are given out again."""
    monkeypatch.setattr(Stamp, "of", lambda status: Stamp(status.st_size, 0, 0, 0))


def mount_coarse(folder: Path) -> None:
    """Mount an ext4 whose small inodes have room for seconds alone."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(16 << 20)
    for command in (
        ["mkfs.ext4", "-q", "-I", "128", image],
        ["mount", "-o", "loop", image, folder],
    ):
        subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(params=["same times", "same times and inodes", "mounted ext4"])
def coarse(request, tmp_path, monkeypatch) -> Iterator[tuple[Path, Callable[[Any], Any]]]:
    """A folder, and what makes its disk one with times of whole seconds."""
    folder = tmp_path / "coarse"
    folder.mkdir()
    if request.param != "mounted ext4":
        if request.param == "same times and inodes":
            forget_stamps(monkeypatch)
        yield folder, CoarseDisk
        return
    try:
        mount_coarse(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only root may mount, where loop devices and mkfs.ext4 are: {error}")
    try:
        yield folder, lambda disk: disk
    finally:
        # A test that failed may have left the store open.
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(params=RUNGS)
def rung(request) -> str:
    return request.param


class Killed(BaseException):
    """Ends a commit as a kill does: nobody cleans up."""


def die() -> None:
    raise Killed


def killing(wrap: Callable[[Any], Any], disk: Any, *, at: int) -> FaultyDisk:
    return FaultyDisk(wrap(disk), at, die)


def check_views(folder: Path, store: Store) -> None:
    assert store.record is not None
    for name, pool in store.record.pools.items():
        for path, digest in view_files(store.record, pool.modules).items():
            assert checksum_of_file(folder / name / path) == store.record.objects[digest].checksum


def test_each_commit_is_shown_whatever_the_times_say(coarse, rung):
    folder, wrap = coarse
    store = open_store(folder, rung, wrap)
    commit(store, 0, images(0))

    for epoch in range(1, 9):
        commit(store, epoch, images(epoch))
        check_shown(folder, epoch)
        assert store.record is not None
        assert store.record.link == rung
    store.close()
    assert not Layout(folder).quarantine.exists()


def test_contents_that_come_in_turn_are_shown_in_turn(coarse, rung):
    folder, wrap = coarse
    store = open_store(folder, rung, wrap)
    commit(store, 0, images(0))

    for epoch in range(1, 7):
        commit(store, epoch, images(epoch % 2))
        for pool in (LAST, BEST, f"epoch_{epoch}"):
            assert (
                checksum_of_file(folder / pool / "net.pt")
                == images(epoch % 2)["net"].finish().checksum
            )
    store.close()


def test_after_a_kill_anywhere_in_a_commit_the_views_are_of_the_record(coarse, rung):
    folder, wrap = coarse
    store = open_store(folder, rung, wrap)
    commit(store, 0, images(0))
    store.close()

    found, number, epoch = set(), 0, 0
    is_killed = True
    while is_killed:
        disk_of = partial(killing, wrap, at=number)
        store = open_store(folder, rung, disk_of)
        try:
            commit(store, epoch + 1, images(epoch + 1))
            is_killed = False
        except Killed:
            number += 1
        store.close()
        store = open_store(folder, rung, wrap)
        check_views(folder, store)
        assert store.record is not None
        epoch = store.record.epoch
        found.add(epoch)
        store.close()

    assert number > 20
    assert len(found) > 5
    assert not Layout(folder).quarantine.exists()


def test_a_view_that_changed_is_never_taken_for_what_it_held_before(tmp_path, rung, monkeypatch):
    """A kill in the midst of a commit, and then its record is damaged: the one before counts."""
    forget_stamps(monkeypatch)
    number, is_killed = 0, True
    while is_killed:
        folder = tmp_path / str(number)
        folder.mkdir()
        store = open_store(folder, rung)
        commit(store, 0, images(0))
        commit(store, 1, images(1))
        store.close()
        store = open_store(folder, rung, partial(killing, CoarseDisk, at=number))
        try:
            commit(store, 2, images(2))
            is_killed = False
        except Killed:
            number += 1
        store.close()
        record = Layout(folder).record(3)
        if record.exists():
            record.chmod(0o644)
            record.write_text("{}")

        store = open_store(folder, rung)

        assert store.record is not None
        assert store.record.number == 2
        check_views(folder, store)
        store.close()
    assert number > 20


def test_a_commit_and_an_opening_read_no_view(tmp_path, rung, monkeypatch):
    store = open_store(tmp_path, rung)
    monkeypatch.setattr(recovery, "checksum_if_readable", lambda path: pytest.fail(f"read {path}"))
    for epoch in range(5):
        commit(store, epoch, images(epoch // 2))
    store.close()
    disks: list[FaultyDisk] = []

    open_store(tmp_path, rung, lambda disk: disks.append(FaultyDisk(disk)) or disks[0]).close()

    assert disks[0].operations == []


def test_a_commit_makes_as_many_changes_in_the_ninth_epoch_as_in_the_third(tmp_path, rung):
    disks: list[FaultyDisk] = []
    store = open_store(tmp_path, rung, lambda disk: disks.append(FaultyDisk(disk)) or disks[0])
    counts = []
    for epoch in range(10):
        before = len(disks[0].operations)
        commit(store, epoch, images(epoch))
        counts.append(len(disks[0].operations) - before)
    store.close()

    assert counts[9] == counts[3]
    notes = Layout(tmp_path).shown
    assert {note.stem for note in notes.iterdir()} == {"frzn", "init", "last", "best", "epoch_9"}


def edit_in_place(file: Path, content: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(content)


def edit_by_replacing(file: Path, content: bytes) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(file)


EDITS = {"in place": edit_in_place, "by another file": edit_by_replacing}


def edit(file: Path, how: str) -> bytes:
    """Change a byte of a file, and put its size and time back."""
    status, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    EDITS[how](file, bytes(content))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return bytes(content)


@pytest.mark.parametrize("how", EDITS)
def test_an_edit_that_puts_size_and_time_back_is_kept_by_the_commit_that_replaces_it(
    tmp_path, rung, how, caplog
):
    store = open_store(tmp_path, rung)
    commit(store, 0, images(0))
    commit(store, 1, images(1))
    file = tmp_path / LAST / "net.pt"
    mine = edit(file, how)

    commit(store, 2, images(2))

    check_shown(tmp_path, 2)
    assert mine in [path.read_bytes() for path in Layout(tmp_path).quarantine.iterdir()]
    assert f"{file} is damaged, or not as a run wrote it" in caplog.text
    store.close()


@pytest.mark.parametrize("how", EDITS)
@pytest.mark.parametrize("pool", [LAST, "epoch_1"])
def test_an_edit_that_puts_size_and_time_back_is_kept_at_opening(tmp_path, rung, how, pool):
    store = open_store(tmp_path, rung)
    commit(store, 0, images(0))
    commit(store, 1, images(1))
    store.close()
    mine = edit(tmp_path / pool / "net.pt", how)

    again = open_store(tmp_path, rung)

    check_views(tmp_path, again)
    assert mine in [path.read_bytes() for path in Layout(tmp_path).quarantine.iterdir()]
    again.close()


def test_an_edit_of_an_older_pool_is_not_taken_for_a_link_of_our_own(tmp_path):
    store = open_store(tmp_path)
    commit(store, 0, images(0))
    commit(store, 1, images(1))
    store.close()
    mine = edit(tmp_path / "init" / "net.pt", "in place")

    store = open_store(tmp_path)
    commit(store, 2, images(2))
    store.close()

    assert mine in [path.read_bytes() for path in Layout(tmp_path).quarantine.iterdir()]
    assert not (tmp_path / "init" / "net.pt").exists()  # its only content was this


def test_what_stat_cannot_show_is_found_by_verify_and_mended_by_repair(tmp_path, monkeypatch):
    forget_stamps(monkeypatch)
    pool = ModulePool.from_modules({"net": nn.Linear(3, 3)})
    with CheckpointManager(tmp_path, pool, link="copy") as checkpoints:
        checkpoints.start()
        checkpoints.commit("last", "best", epoch=1, metrics={"loss": 1.0})
    mine = edit(tmp_path / "best" / "net.pt", "in place")

    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.resume()
    assert (tmp_path / "best" / "net.pt").read_bytes() == mine
    found = verify_store(Layout(tmp_path), digest_of_file)
    assert [str(damage.path.relative_to(tmp_path)) for damage in found.damages] == ["best/net.pt"]

    assert repair(tmp_path).lost == []

    [aside] = Layout(tmp_path).quarantine.iterdir()
    assert aside.read_bytes() == mine
    assert verify_store(Layout(tmp_path), digest_of_file).damages == []


def test_a_copied_store_is_read_once_and_shows_what_it_did(tmp_path, rung, monkeypatch):
    (tmp_path / "made").mkdir()
    store = open_store(tmp_path / "made", rung)
    for epoch in range(3):
        commit(store, epoch, images(epoch))
    store.close()
    subprocess.run(["cp", "-r", tmp_path / "made", tmp_path / "copied"], check=True)

    again = open_store(tmp_path / "copied", rung)
    check_views(tmp_path / "copied", again)
    again.close()
    monkeypatch.setattr(recovery, "checksum_if_readable", lambda path: pytest.fail(f"read {path}"))
    open_store(tmp_path / "copied", rung).close()

    assert not Layout(tmp_path / "copied").quarantine.exists()


def lose(note: Path) -> None:
    note.unlink()


def tear(note: Path) -> None:
    content = note.read_bytes()
    note.chmod(0o644)
    note.write_bytes(content[: len(content) // 2])


def put_a_pipe(note: Path) -> None:
    note.unlink()
    os.mkfifo(note)


def put_a_list(note: Path) -> None:
    note.chmod(0o644)
    note.write_text('{"net.pt": [1, 2]}')


@pytest.mark.parametrize("harm", [lose, tear, put_a_pipe, put_a_list])
def test_without_its_note_a_view_is_read(tmp_path, rung, harm):
    store = open_store(tmp_path, rung)
    commit(store, 0, images(0))
    commit(store, 1, images(1))
    store.close()
    stale = tmp_path / BEST / "net.pt"
    stale.unlink()
    shutil.copy(tmp_path / "init" / "net.pt", stale)
    harm(Layout(tmp_path).note(BEST))

    again = open_store(tmp_path, rung)

    check_views(tmp_path, again)
    assert not Layout(tmp_path).quarantine.exists()
    again.close()
    assert view_notes.ViewNotes(Layout(tmp_path), RUNGS[rung]()).files(BEST)


@pytest.mark.parametrize("coarse", ["mounted ext4"], indirect=True)
def test_a_manager_shows_the_newest_weights_on_a_disk_with_times_of_seconds(coarse):
    folder, _ = coarse
    net = nn.Linear(2, 2)
    with CheckpointManager(
        folder / "ckps", ModulePool.from_modules({"net": net}), asynchronous=False
    ) as checkpoints:
        checkpoints.start()
        for epoch in range(1, 21):
            with torch.no_grad():
                net.weight.fill_(float(epoch))
            assert checkpoints.commit("last", epoch=epoch).durable
            shown = torch.load(folder / "ckps" / "last" / "net.pt", weights_only=True)
            assert shown["weight"].unique().tolist() == [epoch]
