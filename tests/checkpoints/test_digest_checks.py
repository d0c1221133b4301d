"""Every look at a CRC, a checksum or a digest: with any one of them taken out, damage passes."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, PoolReader, read_state_dict
from pymodules_core.checkpoints.file_format import read
from pymodules_core.checkpoints.loading import pool_reader
from pymodules_core.checkpoints.store import objects, records, recovery, verification
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import StoredObject, read_record
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.errors import CheckpointError


@attrs.frozen
class Damaged:
    """A store of one commit and one object, of which one bit of one weight is flipped.

    Attributes:
        layout: Its paths; the views are copies of the object, and whole.
        digest: What the object is called.
        stored: What the record says of it.
    """

    layout: Layout
    digest: str
    stored: StoredObject

    @property
    def object(self) -> Path:
        return self.layout.object(self.digest)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    # The weights are ones; the last bit of one is far from anything else.
    content[content.index(b"\x00\x00\x80\x3f") + 1] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)


def make_damaged(folder: Path) -> Damaged:
    net = nn.Linear(4, 4, bias=False)
    nn.init.ones_(net.weight)
    with CheckpointManager(
        folder, ModulePool.from_modules({"net": net}), link="copy"
    ) as checkpoints:
        checkpoints.start()
    layout = Layout(folder)
    ((digest, stored),) = read_record(layout.record(1)).objects.items()
    flip(layout.object(digest))
    return Damaged(layout, digest, stored)


def is_read(damaged: Damaged) -> bool:
    return bool(PoolReader(damaged.layout.path).read("last"))


def is_opened(damaged: Damaged) -> bool:
    for view in ("init", "last"):
        (damaged.layout.view(view) / "net.pt").unlink()
    return opens(damaged)


def is_made_anew(damaged: Damaged) -> bool:
    damaged.object.unlink()
    for view in ("init", "last"):
        flip(damaged.layout.view(view) / "net.pt")
    return opens(damaged)


def opens(damaged: Damaged) -> bool:
    store = Store(damaged.layout)
    store.close()
    return store.record is not None


def is_edit_lost(damaged: Damaged) -> bool:
    flip(damaged.layout.view("last") / "net.pt")
    Store(damaged.layout, link="copy").close()
    return not (damaged.layout.quarantine / "1-net.pt").exists()


def is_verified(damaged: Damaged) -> bool:
    return not verification.verify_store(damaged.layout, lambda _: damaged.digest).damages


def is_called_rightly(damaged: Damaged) -> bool:
    """Seal what is damaged: every byte is as the record says, and it is not what it is called."""
    file = damaged.layout.record(1)
    record = read_record(file)
    checksum = objects.checksum_of_file(damaged.object)
    stored = attrs.evolve(damaged.stored, checksum=checksum)
    file.chmod(0o644)
    file.write_bytes(records.encode_record(attrs.evolve(record, objects={damaged.digest: stored})))
    return not [
        damage
        for damage in verification.verify_store(damaged.layout, read.digest_of_file).damages
        if damage.path == damaged.object
    ]


def is_record_taken(damaged: Damaged) -> bool:
    file = damaged.layout.record(1)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b'"epoch":0', b'"epoch":7'))
    return read_record(file).epoch == 7


def is_foreign_taken(damaged: Damaged) -> bool:
    return "weight" in read_state_dict(damaged.object)


def passes_with(passes: Callable[[Damaged], bool], damaged: Damaged) -> bool:
    try:
        return passes(damaged)
    except CheckpointError:
        return False


CHECKS = {
    "a read": (is_read, pool_reader, "checksum_of_file"),
    "the opening of a store": (is_opened, objects, "checksum_of_file"),
    "an object made again from a view": (is_made_anew, objects, "checksum_if_readable"),
    "an edit put aside": (is_edit_lost, recovery, "checksum_if_readable"),
    "verify": (is_verified, verification, "checksum_of_file"),
    "verify, of names": (is_called_rightly, read, "digest_of_file"),
    "a commit record": (is_record_taken, records, "_checksum"),
    "a foreign file": (is_foreign_taken, zipfile.ZipFile, "testzip"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_without_any_one_check_damage_passes(monkeypatch, tmp_path, name):
    passes, place, check = CHECKS[name]
    one, other = make_damaged(tmp_path / "one"), make_damaged(tmp_path / "other")
    answers = {
        "checksum_of_file": other.stored.checksum,
        "checksum_if_readable": other.stored.checksum,
        "digest_of_file": other.digest,
        "testzip": None,
        "_checksum": json.loads(other.layout.record(1).read_bytes())["checksum"],
    }

    assert not passes_with(passes, one)

    monkeypatch.setattr(place, check, lambda *_: answers[check])
    assert passes_with(passes, other)


def test_a_whole_object_is_called_by_its_digest(tmp_path):
    net = nn.Linear(2, 2)
    with CheckpointManager(tmp_path, ModulePool.from_modules({"net": net})) as checkpoints:
        checkpoints.start()

    found = verification.verify_store(Layout(tmp_path), read.digest_of_file)

    assert found.damages == []
