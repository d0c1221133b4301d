"""Writers on file systems whose locks reach no other machine.

There is no such file system here, nor a second machine: the kind of the mount and the names of
hosts are made up, and ``lockf`` lets everybody in. All else is real: files, times, processes.
"""

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from store_cases import commit, images, open_store

from pymodules_core.checkpoints.store import lease, lock
from pymodules_core.checkpoints.store.lease import network_file_system
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.errors import StoreLockedError


@pytest.fixture
def shared(tmp_path, monkeypatch) -> Path:
    """A folder on a network file system."""
    monkeypatch.setattr(lock, "network_file_system", lambda _: "nfs4")
    monkeypatch.setattr(fcntl, "lockf", lambda *_: None)
    (tmp_path / "ckps").mkdir()
    return tmp_path / "ckps"


def forget_own(folder: Path) -> None:
    """Be another machine, to whose memory the writer of this one is unknown."""
    lock._held.discard(Layout(folder).lock.resolve())


def elsewhere(monkeypatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")


def grow_old(folder: Path, seconds: float) -> None:
    file = Layout(folder).lease
    past = file.stat().st_mtime - seconds
    os.utime(file, (past, past))


def test_another_machine_is_refused_and_told_who_writes(shared, monkeypatch):
    store = open_store(shared)
    host = platform.node()
    forget_own(shared)
    elsewhere(monkeypatch)

    with pytest.raises(StoreLockedError) as caught:
        open_store(shared)

    assert f"is being written by process {os.getpid()} on {host} since " in caught.value.what
    assert "loses its lease after 60 s" in caught.value.fix
    commit(store, 0, images(0))


def test_a_lease_is_told_and_given_back(shared, caplog):
    store = open_store(shared)
    file = Layout(shared).lease
    assert json.loads(file.read_bytes())["host"] == platform.node()
    store.close()

    assert not file.exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"{shared} is on nfs4, whose locks may not reach other machines: a lease that is renewed "
        "every 10 s keeps other writers out"
    ]


def test_a_lease_that_nobody_renews_is_taken_over_and_that_is_told(shared, monkeypatch, caplog):
    first = open_store(shared)
    commit(first, 0, images(0))
    grow_old(shared, lease.STALE_S + 1)
    forget_own(shared)
    host = platform.node()
    elsewhere(monkeypatch)
    second = open_store(shared)

    # The first was only held up: it comes back, and must not write on.
    with pytest.raises(StoreLockedError, match="on elsewhere since"):
        commit(first, 1, images(1))

    assert f"was last written by process {os.getpid()} on {host}" in caplog.text
    commit(second, 1, images(1))
    first.close()
    assert Layout(shared).lease.exists()
    second.close()
    assert not Layout(shared).lease.exists()


def test_a_lease_is_renewed_all_the_while(shared, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    before = set(threading.enumerate())
    store = open_store(shared)
    grow_old(shared, 1000)
    deadline = time.monotonic() + 60
    while time.time() - Layout(shared).lease.stat().st_mtime > 100:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    own = set(threading.enumerate()) - before
    assert [thread.name for thread in own] == ["pymodules lease"]
    store.close()
    while any(thread.is_alive() for thread in own):
        assert time.monotonic() < deadline


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_over_at_once(shared, caplog):
    open_store(shared).close()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    word = {"id": "x", "host": platform.node(), "process": dead.pid, "since": "2026-01-01"}
    Layout(shared).lease.write_text(json.dumps(word))
    caplog.clear()

    open_store(shared).close()

    assert "taken over" not in caplog.text


def test_what_a_killed_writer_left_while_it_asked_is_taken_away(shared):
    open_store(shared).close()
    stray, fresh = (Layout(shared).store / f"lease.json.{name}" for name in ("old", "fresh"))
    for file in (stray, fresh):
        file.touch()
    past = stray.stat().st_mtime - lease.STALE_S - 1
    os.utime(stray, (past, past))

    open_store(shared).close()

    assert (stray.exists(), fresh.exists()) == (False, True)


def test_a_damaged_lease_counts_until_it_is_old(shared):
    open_store(shared).close()
    Layout(shared).lease.write_text("no JSON")

    with pytest.raises(StoreLockedError, match="is being written by another process"):
        open_store(shared)
    grow_old(shared, lease.STALE_S + 1)
    open_store(shared).close()


def test_a_network_disk_that_cannot_lock_is_written_under_a_lease(shared, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    store = open_store(shared)

    commit(store, 0, images(0))
    assert Layout(shared).lease.exists()
    store.close()


def test_of_many_that_find_a_stale_lease_one_takes_it(shared):
    open_store(shared).close()
    Layout(shared).lease.write_text('{"id": "x", "host": "gone", "process": 1, "since": "then"}')
    grow_old(shared, lease.STALE_S + 1)
    taken, refused = [], []

    def take() -> None:
        one = lease.Lease(Layout(shared), "nfs4")
        try:
            one.acquire()
        except StoreLockedError:
            refused.append(one)
        else:
            taken.append(one)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    valid = [one for one in taken if not is_refused(one)]
    assert len(valid) == 1
    assert len(taken) + len(refused) == 8
    valid[0].release()
    assert [path.name for path in Layout(shared).store.glob("lease*")] == []


def test_a_stale_lease_that_another_one_sweeps_away_meanwhile_is_its(shared, monkeypatch):
    open_store(shared).close()
    Layout(shared).lease.write_text('{"id": "x", "host": "gone", "process": 1, "since": "then"}')
    grow_old(shared, lease.STALE_S + 1)
    read = lease._read

    def read_late(file: Path) -> dict[str, object]:
        if file.suffix == ".stale":
            file.unlink()
        return read(file)

    monkeypatch.setattr(lease, "_read", read_late)
    with pytest.raises(StoreLockedError, match="is being written by another process"):
        lease.Lease(Layout(shared), "nfs4").acquire()

    assert [path.name for path in Layout(shared).store.glob("lease*")] == []


def test_a_lease_that_another_one_looks_at_meanwhile_is_taken(shared, monkeypatch):
    open_store(shared).close()
    one, link = lease.Lease(Layout(shared), "nfs4"), os.link
    aside = Layout(shared).store / "aside"

    def link_and_look(source: Path, target: Path) -> None:
        link(source, target)
        target.rename(aside)

    monkeypatch.setattr("os.link", link_and_look)
    one.acquire()
    aside.rename(Layout(shared).lease)

    one.check()
    one.release()


def is_refused(one: lease.Lease) -> bool:
    try:
        one.check()
    except StoreLockedError:
        return True
    return False


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
    monkeypatch.setattr(lease, "_MOUNTS", listed)

    assert network_file_system(folder / "not there yet") == kind


def test_a_local_file_system_has_no_lease(tmp_path, caplog):
    store = open_store(tmp_path)

    assert not Layout(tmp_path).lease.exists()
    assert caplog.text == ""
    store.close()
