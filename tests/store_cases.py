"""A small store to break: two modules, and commits that name three pools each."""

import errno
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pymodules_core import BEST, FRZN, INIT, LAST, CommitResult, PoolReader
from pymodules_core.checkpoints.file_buffer.buffer import FileBuffer
from pymodules_core.checkpoints.saving.commits import Commit, next_record
from pymodules_core.checkpoints.store import objects
from pymodules_core.checkpoints.store.checksums import checksum_of_file
from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.store import Store


class SharingDisk(Disk):
    """Every file system as one with reflinks: what they would share is copied."""

    def clone(self, source: Path, target: Path) -> None:
        """Copy."""
        target.write_bytes(source.read_bytes())
        target.chmod(0o444)


class LinkingDisk(Disk):
    """Every file system as one without reflinks."""

    def clone(self, source: Path, target: Path) -> None:  # noqa: ARG002
        """Refuse."""
        raise OSError(errno.EOPNOTSUPP, "no reflinks")


RUNGS: dict[str, type[Disk]] = {
    "hard link": LinkingDisk,
    "reflink": SharingDisk,
    "copy": LinkingDisk,
}


def open_store(
    folder: Path, rung: str = "hard link", wrap: Callable[[Disk], Any] = lambda disk: disk
) -> Store:
    """Open a store that takes its views from objects in one of three ways."""
    link = "copy" if rung == "copy" else "auto"
    return Store(Layout(folder), disk=wrap(RUNGS[rung]()), link=link)


def write_in_threads(monkeypatch) -> None:
    """Let the larger module count as large, so that other threads write it."""
    monkeypatch.setattr(objects, "WRITE_BYTES", 4096)


def images(value: float) -> dict[str, FileBuffer]:
    """Return the weights of one moment, laid out and finished, so that a child needs no torch."""
    torch.manual_seed(int(value))
    made = {
        "net": FileBuffer({"weight": torch.rand(40, 40)}),
        "head": FileBuffer({"b": torch.ones(2)}),
    }
    for image in made.values():
        image.finish()
    return made


def commit(store: Store, epoch: int, weights: dict[str, FileBuffer]):
    pools = (LAST, BEST, f"epoch_{epoch}") if epoch else (FRZN, INIT, LAST)
    members = {pool: ["head"] if pool == FRZN else ["net"] for pool in pools}
    asked = Commit(
        receipt=CommitResult(pools=pools, epoch=epoch, step=epoch * 10, best_moved=bool(epoch)),
        members=members,
        images=weights,
        metrics={"loss": 1.0 / (epoch + 1)},
        best=None,
        module_names=frozenset(["net", "head"]),
        keep_epochs=1,
        started=0.0,
    )

    def make_record(before):
        used = sorted({name for names in members.values() for name in names})
        return next_record(before, asked, store.objects.add_all({n: weights[n] for n in used}))

    return store.commit(make_record)


def copy_store(source: Path, target: Path) -> None:
    # With its hard links, which shutil.copytree would not keep.
    subprocess.run(["cp", "-a", source, target], check=True)
    # Its inodes are others: once opened, its views need no second look.
    Store(Layout(target), link=None).close()


def check_shown(folder: Path, epoch: int) -> None:
    """Check that people see the pools of that commit, without any repair."""
    assert not (folder / f"epoch_{epoch - 1}").exists()
    expected = images(epoch)["net"].finish().checksum
    for pool in (LAST, BEST, f"epoch_{epoch}"):
        assert checksum_of_file(folder / pool / "net.pt") == expected


class FaultyDisk:
    """Counts every change to the file system, and acts on one of them.

    Args:
        disk: Makes the changes.
        number: Which one.
        act: What to do there; False leaves the change out.
        after: Act once the change is made, not before.
    """

    def __init__(
        self, disk: Any, number: int = -1, act: Any = None, *, after: bool = False
    ) -> None:
        self.operations: list[str] = []
        self._lock = threading.Lock()
        self._disk = disk
        self._number = number
        self._act = act
        self._after = after

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._disk, name)

        def run(*args: Any, **more: Any) -> Any:
            with self._lock:  # large files are written by several threads
                is_chosen = len(self.operations) == self._number
                self.operations.append(name)
            if is_chosen and not self._after and self._act() is False:
                return None
            try:
                return operation(*args, **more)
            finally:
                if is_chosen and self._after:
                    self._act()

        return run


def check_whole(folder: Path, rung: str) -> int:
    """Check what a reader sees, then what a writer makes of it; give the number of the commit."""
    reader = PoolReader(folder)
    seen = {name: reader.read(name)["net"].digest for name in (LAST, BEST)}
    assert seen[LAST] == seen[BEST]

    layout = Layout(folder)
    store = open_store(folder, rung)
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
            checksum = record.objects[digest].checksum
            assert checksum_of_file(layout.object(digest)) == checksum
            assert checksum_of_file(shown[f"{pool_name}/{name}.pt"]) == checksum
            torch.load(shown[f"{pool_name}/{name}.pt"], weights_only=True)
    assert not list(layout.stage.iterdir())
    assert not layout.quarantine.exists()

    disks = list[FaultyDisk]()
    open_store(folder, rung, lambda disk: disks.append(FaultyDisk(disk)) or disks[0]).close()
    assert disks[0].operations == []
    return record.number
