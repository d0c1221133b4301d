"""Writers on file systems whose locks reach no other machine: no record replaces another.

There is no such file system here, nor a second machine: the kind of the mount and the names of
hosts are made up, and ``lockf`` lets everybody in. All else is real: files, links, processes.
"""

import ctypes
import errno
import fcntl
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_cases import LinkingDisk, commit, images

from pymodules_core import LAST, PoolReader
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.store import lock
from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.lock import network_file_system
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.errors import StoreLockedError


def refuse(code: int) -> Callable[..., None]:
    def raise_it(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return raise_it


class NfsDisk(LinkingDisk):
    """Has no flags of ``renameat2``, as NFS."""

    rename_no_replace = staticmethod(refuse(errno.EINVAL))


class ExFatDisk(NfsDisk):
    """Has no links either, as exFAT."""

    link = staticmethod(refuse(errno.EPERM))


DISKS = {"renameat2": LinkingDisk, "link": NfsDisk, "rename": ExFatDisk}


@pytest.fixture(params=DISKS)
def disk(request) -> Disk:
    return DISKS[request.param]()


@pytest.fixture
def shared(tmp_path, monkeypatch) -> Path:
    """A folder on a network file system."""
    monkeypatch.setattr(lock, "network_file_system", lambda _: "nfs4")
    monkeypatch.setattr(fcntl, "lockf", lambda *_: None)
    (tmp_path / "ckps").mkdir()
    return tmp_path / "ckps"


def open_elsewhere(folder: Path, monkeypatch, host: str = "elsewhere", **how: Any) -> Store:
    """Open a store as another machine, to whose memory the writer of this one is unknown."""
    lock._held.discard(Layout(folder).lock.resolve())
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: host)
        return Store(Layout(folder), **how)


def records_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Layout(folder).commits.iterdir()}


def test_of_two_writers_the_second_that_commits_is_refused(shared, disk, monkeypatch):
    first = Store(Layout(shared), disk=disk)
    commit(first, 0, images(0))
    second = open_elsewhere(shared, monkeypatch, disk=disk)
    commit(second, 1, images(1))
    records = records_of(shared)

    for _ in range(2):  # and it stays refused
        with pytest.raises(StoreLockedError) as caught:
            commit(first, 2, images(2))
        assert f"being written by process {os.getpid()} on elsewhere since " in caught.value.what

    assert records_of(shared) == records
    commit(second, 2, images(2))
    assert PoolReader(shared).read(LAST)["net"].epoch == 2
    assert verify_store(Layout(shared), digest_of_file).damages == []


def test_one_that_opened_last_names_the_one_that_was_there(shared, disk, monkeypatch):
    first = Store(Layout(shared), disk=disk)
    commit(first, 0, images(0))
    second = open_elsewhere(shared, monkeypatch, disk=disk)
    commit(first, 1, images(1))

    with pytest.raises(StoreLockedError, match=f"on {platform.node()} since "):
        commit(second, 1, images(1))


@pytest.mark.parametrize("kind", [LinkingDisk, NfsDisk])
def test_a_record_that_comes_at_the_last_moment_is_not_replaced(shared, kind, monkeypatch):
    """Where the file system itself refuses, between the look at the numbers and the new name."""
    store = Store(Layout(shared), disk=kind())
    commit(store, 0, images(0))
    looks = []

    def look_too_early() -> None:
        looks.append(None)
        if len(looks) == 2:
            Layout(shared).record(2).write_bytes(b"of another machine")

    monkeypatch.setattr(store, "_refuse_other_writer", look_too_early)
    with pytest.raises(StoreLockedError, match="is being written by another process"):
        commit(store, 1, images(1))

    assert Layout(shared).record(2).read_bytes() == b"of another machine"
    # The other writer needs the same names there.
    assert [path.name for path in Layout(shared).stage.iterdir()] == []


def test_a_failure_leaves_the_stage_of_another_writer_alone(shared, monkeypatch):
    disk = LinkingDisk()
    first = Store(Layout(shared), disk=disk)
    commit(first, 0, images(0))
    second = open_elsewhere(shared, monkeypatch)
    commit(second, 1, images(1))
    Layout(shared).stage.joinpath("of the second").touch()
    monkeypatch.setattr(disk, "create", refuse(errno.ENOENT))

    with pytest.raises(StoreLockedError):
        commit(first, 2, images(2))

    assert Layout(shared).stage.joinpath("of the second").exists()


def test_a_writer_that_closes_leaves_the_word_of_another(shared, monkeypatch):
    first = Store(Layout(shared))
    second = open_elsewhere(shared, monkeypatch)
    first.close()

    assert "elsewhere" in Layout(shared).holder.read_text()
    second.close()
    assert not Layout(shared).holder.exists()


def test_a_server_that_lost_its_first_answer_counts_as_done(tmp_path):
    class ForgetfulDisk(NfsDisk):
        def link(self, source: Path, target: Path) -> None:
            super().link(source, target)
            if target.suffix == ".json":
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))

    store = Store(Layout(tmp_path), disk=ForgetfulDisk())

    assert commit(store, 0, images(0)).number == 1
    store.close()
    assert list(Layout(tmp_path).stage.iterdir()) == []


def test_every_file_system_gets_whole_commits(tmp_path, disk):
    store = Store(Layout(tmp_path), disk=disk)
    for epoch in range(3):
        commit(store, epoch, images(epoch))
    store.close()

    assert PoolReader(tmp_path).read(LAST)["net"].epoch == 2
    assert verify_store(Layout(tmp_path), digest_of_file).damages == []


def test_a_move_to_a_name_that_is_taken_is_refused(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    target.write_text("old")

    with pytest.raises(FileExistsError):
        Disk().rename_no_replace(source, target)

    assert (source.read_text(), target.read_text()) == ("new", "old")
    target.unlink()
    Disk().rename_no_replace(source, target)
    assert (source.exists(), target.read_text()) == (False, "new")


def test_a_system_without_renameat2_says_so(tmp_path, monkeypatch):
    def no_library(*_: object, **__: object) -> None:
        raise OSError("no C library")

    monkeypatch.setattr(ctypes, "CDLL", no_library)

    with pytest.raises(OSError, match="no renameat2") as caught:
        Disk().rename_no_replace(tmp_path / "a", tmp_path / "b")
    assert caught.value.errno == errno.ENOSYS


def test_locks_that_may_reach_no_other_machine_are_warned_of(shared, caplog):
    Store(Layout(shared)).close()

    assert [record.getMessage() for record in caplog.records] == [
        f"{shared} is on nfs4, whose locks may not reach other machines: a second writer there is "
        "refused only when it commits"
    ]


def test_a_local_file_system_is_not_warned_of(tmp_path, caplog):
    Store(Layout(tmp_path)).close()

    assert caplog.text == ""


def test_a_network_disk_that_cannot_lock_is_written_with_a_warning(shared, monkeypatch, caplog):
    monkeypatch.setattr(fcntl, "lockf", refuse(errno.ENOLCK))
    store = Store(Layout(shared))

    assert commit(store, 0, images(0)).number == 1
    assert "whose locks may not reach other machines" in caplog.text
    store.close()


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        ("1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {folder} rw - nfs4 host:/x rw", "nfs4"),
        ("1 0 0:1 / / rw - nfs host:/ rw\n2 1 0:2 / {folder} rw shared:1 - xfs /dev/b rw", None),
        ("1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {folder}x rw - cifs //host/x rw", None),
        ("1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {folder} rw - fuse.sshfs a: rw", "fuse.sshfs"),
        ("1 0 0:1 / / rw - overlay overlay rw", None),
    ],
)
def test_the_kind_of_a_file_system_is_that_of_its_nearest_mount(
    tmp_path, monkeypatch, mounts, kind
):
    folder = tmp_path / "a b"
    folder.mkdir()
    listed = tmp_path / "mountinfo"
    listed.write_text(mounts.format(folder=str(folder).replace(" ", "\\040")))
    monkeypatch.setattr(lock, "_MOUNTS", listed)

    assert network_file_system(folder / "not there yet") == kind
