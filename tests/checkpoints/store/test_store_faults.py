"""A store under kills and disk errors at every step of a commit: always the old or the new one."""

import errno
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from store_cases import (
    RUNGS,
    FaultyDisk,
    check_shown,
    check_whole,
    commit,
    copy_store,
    images,
    open_store,
    write_in_threads,
)

from pymodules_core import BEST, FRZN, INIT, LAST, PoolReader
from pymodules_core.checkpoints.file_buffer.buffer import FileBuffer
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.store import Store

FALL_BACK = {"clone", "link", "exchange", "rename_no_replace"}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail_with(code: int):
    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


def leave_out() -> bool:
    return False


@attrs.frozen
class Case:
    """A store with two commits, the weights of the third, and what that one does to the disk."""

    folder: Path
    rung: str
    third: dict[str, FileBuffer]
    operations: list[str]

    def copy_to(self, folder: Path) -> Path:
        copy_store(self.folder, folder)
        return folder


@pytest.fixture(scope="module", params=RUNGS)
def case(request, tmp_path_factory) -> Iterator[Case]:
    rung = request.param
    with pytest.MonkeyPatch.context() as monkeypatch:
        if rung != "hard link":
            write_in_threads(monkeypatch)
        folder = tmp_path_factory.mktemp("template")
        store = open_store(folder, rung)
        commit(store, 0, images(0))
        commit(store, 1, images(1))
        store.close()
        third = images(2)
        copy = tmp_path_factory.mktemp("count") / "ckps"
        copy_store(folder, copy)
        disks = list[FaultyDisk]()
        store = open_store(copy, rung, lambda disk: disks.append(FaultyDisk(disk)) or disks[0])
        assert commit(store, 2, third).link == rung
        store.close()
        operations = disks[0].operations
        assert {"create", "write", "sync", "sync_path", "rename", "unlink"} <= {*operations}
        yield Case(folder, rung, third, operations)


def die_at(folder: Path, case: Case, number: int, *, after: bool, then: Any) -> bool:
    """Do ``then`` in a child that is killed at one change; tell whether it came to that."""
    child = os.fork()
    if child == 0:
        store = open_store(
            folder, case.rung, lambda disk: FaultyDisk(disk, number, kill, after=after)
        )
        then(store)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}
    return code != 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_commit(case, tmp_path, after):
    found = []
    for number in range(len(case.operations)):
        folder = case.copy_to(tmp_path / str(number))
        then = partial(commit, epoch=2, weights=case.third)
        assert die_at(folder, case, number, after=after, then=then)
        found.append(check_whole(folder, case.rung))
        store = open_store(folder, case.rung)
        assert commit(store, 3, images(3)).number == found[-1] + 1
        store.close()

    # The record's rename decides: before it the old commit, after it the new.
    assert found == sorted(found)
    assert {*found} == {2, 3}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_step_of_a_recovery_leaves_one_that_works(case, tmp_path, after):
    """Kills the commit in the middle of its views, where most is left to do, then the recovery."""
    published = len(case.operations) - 1 - case.operations[::-1].index("exchange")
    recoveries = 0
    while True:
        folder = case.copy_to(tmp_path / str(recoveries))
        then = partial(commit, epoch=2, weights=case.third)
        assert die_at(folder, case, published, after=False, then=then)
        if not die_at(folder, case, recoveries, after=after, then=Store.close):
            break
        assert check_whole(folder, case.rung) == 3
        recoveries += 1

    assert recoveries > 5


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_disk_error_at_any_step_is_raised_and_the_next_commit_works(case, tmp_path, code):
    raised = 0
    for number, operation in enumerate(case.operations):
        folder = case.copy_to(tmp_path / str(number))
        store = open_store(
            folder, case.rung, lambda disk, n=number: FaultyDisk(disk, n, fail_with(code))
        )
        codes = []
        try:
            commit(store, 2, images(2))
        except OSError as error:
            codes.append(error.errno)
        raised += len(codes)
        # A full disk needs what the stage took.
        assert not list(Layout(folder).stage.iterdir())

        # Only a way to link, swap or move that the disk refuses has another to fall back to.
        assert codes == [code] or operation in FALL_BACK
        seen = PoolReader(folder).read(LAST)["net"].digest
        assert seen in {image["net"].finish().digest for image in (images(1), images(2))}
        assert commit(store, 2, images(2)).pools[LAST].epoch == 2
        store.close()
        layout = Layout(folder)
        assert not list(layout.stage.iterdir())
        names = {path.parent.name for path in folder.glob("*/*.pt")}
        assert names == {FRZN, INIT, LAST, BEST, "epoch_2"}

    assert raised > len(case.operations) / 2


def test_without_any_one_rename_the_harness_goes_red(case, tmp_path):
    names = {"rename", "rename_no_replace", "exchange"}
    renames = [n for n, name in enumerate(case.operations) if name in names]
    unnoticed = []
    for number in renames:
        folder = case.copy_to(tmp_path / str(number))
        try:
            store = open_store(
                folder, case.rung, lambda disk, n=number: FaultyDisk(disk, n, leave_out)
            )
            commit(store, 2, case.third)
            store.close()
            check_shown(folder, 2)
            assert check_whole(folder, case.rung) == 3
        except (AssertionError, OSError, ValueError):
            continue
        unnoticed.append(case.operations[number])

    assert len(renames) > 3
    assert unnoticed == []
