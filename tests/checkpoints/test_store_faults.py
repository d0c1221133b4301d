"""A store under kills and disk errors at every step of a commit: always the old or the new one."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from store_cases import commit, copy_store, images

from pymodules_core.checkpoints.image import FileImage
from pymodules_core.checkpoints.reading import PoolReader
from pymodules_core.checkpoints.store.disk import Disk
from pymodules_core.checkpoints.store.layout import Layout
from pymodules_core.checkpoints.store.seals import seal_of_file
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.names import BEST, FRZN, INIT, LAST


class FaultyDisk:
    """Counts every change to the file system, and acts on one of them."""

    def __init__(self, number: int = -1, act: Any = None, *, after: bool = False) -> None:
        self.operations: list[str] = []
        self._disk = Disk()
        self._number = number
        self._act = act
        self._after = after

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._disk, name)

        def run(*args: Any, **more: Any) -> Any:
            is_chosen = len(self.operations) == self._number
            self.operations.append(name)
            if is_chosen and not self._after:
                self._act()
            try:
                return operation(*args, **more)
            finally:
                if is_chosen and self._after:
                    self._act()

        return run


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail_with(code: int):
    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


@attrs.frozen
class Case:
    """A store with two commits, the weights of the third, and how many steps that one takes."""

    folder: Path
    third: dict[str, FileImage]
    steps: int


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("template")
    store = Store(Layout(folder))
    commit(store, 0, images(0))
    commit(store, 1, images(1))
    store.close()
    counting = FaultyDisk()
    third = images(2)
    copy = tmp_path_factory.mktemp("count") / "ckps"
    copy_store(folder, copy)
    store = Store(Layout(copy), disk=counting)
    commit(store, 2, third)
    store.close()
    assert {"create", "write", "sync", "sync_folder", "rename", "unlink"} <= {*counting.operations}
    return Case(folder, third, len(counting.operations))


def check_whole(folder: Path) -> int:
    """Check what a reader sees, then what a writer makes of it; give the number of the commit."""
    reader = PoolReader(folder)
    seen = {name: reader.read(name)["net"].digest for name in (LAST, BEST)}
    assert seen[LAST] == seen[BEST]

    layout = Layout(folder)
    store = Store(layout)
    record = store.record
    store.close()

    assert record is not None
    epoch = record.epoch
    assert (record.number, set(record.pools)) == (
        epoch + 1,
        {FRZN, INIT, LAST, BEST, f"epoch_{epoch}"},
    )
    assert seen[LAST] == record.pools[LAST].modules["net"]
    shown = {f"{path.parent.name}/{path.name}": path for path in folder.glob("*/*.pt")}
    assert set(shown) == {
        f"{pool_name}/{name}.pt"
        for pool_name, pool in record.pools.items()
        for name in pool.modules
    }
    for pool_name, pool in record.pools.items():
        for name, digest in pool.modules.items():
            seal = record.objects[digest].seal
            assert seal_of_file(layout.object(digest)) == seal
            assert seal_of_file(shown[f"{pool_name}/{name}.pt"]) == seal
            torch.load(shown[f"{pool_name}/{name}.pt"], weights_only=True)
    assert not list(layout.stage.iterdir())
    assert not layout.quarantine.exists()

    again = FaultyDisk()
    Store(layout, disk=again).close()
    assert again.operations == []
    return record.number


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_commit(case, tmp_path, after):
    found = []
    for number in range(case.steps):
        folder = tmp_path / str(number)
        copy_store(case.folder, folder)
        child = os.fork()
        if child == 0:
            store = Store(Layout(folder), disk=FaultyDisk(number, kill, after=after))
            commit(store, 2, case.third)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, number
        found.append(check_whole(folder))
        store = Store(Layout(folder))
        assert commit(store, 3, images(3)).number == found[-1] + 1
        store.close()

    # The record's rename decides: before it the old commit, after it the new.
    assert found == sorted(found)
    assert {*found} == {2, 3}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_disk_error_at_any_step_is_raised_and_the_next_commit_works(case, tmp_path, code):
    raised = 0
    for number in range(case.steps):
        folder = tmp_path / str(number)
        copy_store(case.folder, folder)
        disk = FaultyDisk(number, fail_with(code))
        store = Store(Layout(folder), disk=disk)
        codes = []
        try:
            commit(store, 2, images(2))
        except OSError as error:
            codes.append(error.errno)
        raised += len(codes)

        # Only a way to link or swap that the disk refuses has another to fall back to.
        assert codes == [code] or disk.operations[number] in {"clone", "link", "exchange"}
        seen = PoolReader(folder).read(LAST)["net"].digest
        assert seen in {image["net"].seal().digest for image in (images(1), images(2))}
        assert commit(store, 2, images(2)).pools[LAST].epoch == 2
        store.close()
        layout = Layout(folder)
        assert not list(layout.stage.iterdir())
        names = {path.parent.name for path in folder.glob("*/*.pt")}
        assert names == {FRZN, INIT, LAST, BEST, "epoch_2"}

    assert raised > case.steps / 2
