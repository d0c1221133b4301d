"""Weights of another experiment: taken by their blocks where the disk can, and never by a link."""

import errno
from pathlib import Path

import pytest
import torch
from store_cases import SharingDisk
from torch import nn

from pymodules_core import CheckpointManager, ModulePool
from pymodules_core.checkpoints.store.checksums import seal_of_file
from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.names import BEST
from pymodules_core.specs import WeightsOrigin


def pools_of(experiment: str) -> Path:
    return Path("data/experiments") / experiment / "data/module_ckps"


@pytest.fixture
def teacher(tmp_path, monkeypatch) -> nn.Module:
    """A module of experiment ``giver`` as ``best`` has it."""
    monkeypatch.chdir(tmp_path)
    pools_of("giver").mkdir(parents=True)
    net = nn.Linear(5, 5)
    with CheckpointManager(pools_of("giver"), ModulePool.from_modules({"net": net})) as ckps:
        ckps.start()
        ckps.commit(BEST, epoch=0, metrics={"loss": 1.0})
    return net


def start_taker(net: nn.Module) -> tuple[CheckpointManager, int, int]:
    """Start a run with the teacher frozen; give what was written and what was shared."""
    pool = ModulePool.from_modules({"teacher": net}, settings={"teacher": {"frozen": True}})
    (digest,) = readable_records(Layout(pools_of("giver")))[0].pools[BEST].modules.values()
    pool.weights_origins["teacher"] = WeightsOrigin(
        digest=digest, experiment="giver", pool=BEST, module="net", epoch=0
    )
    pools_of("taker").mkdir(parents=True)
    checkpoints = CheckpointManager(pools_of("taker"), pool)
    receipt = checkpoints.start()
    checkpoints.close()
    return checkpoints, receipt.bytes_written, receipt.bytes_shared


def donor() -> Path:
    (file,) = Layout(pools_of("giver")).objects.iterdir()
    return file


def test_blocks_are_shared_and_nothing_is_written(monkeypatch, teacher):
    monkeypatch.setattr(Disk, "clone", SharingDisk.clone)

    checkpoints, written, shared = start_taker(teacher)

    size = donor().stat().st_size
    assert (written, shared) == (0, size)
    mine = Layout(pools_of("taker")).object(donor().stem)
    assert seal_of_file(mine) == seal_of_file(donor())
    assert mine.stat().st_ino != donor().stat().st_ino
    with torch.no_grad():
        before = teacher.weight.clone()
        teacher.weight.zero_()
    checkpoints.load("frzn")
    assert torch.equal(teacher.weight, before)


def refuse(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "no reflinks")


def test_without_reflinks_they_are_written_and_never_linked(monkeypatch, teacher):
    monkeypatch.setattr(Disk, "clone", refuse)

    _, written, shared = start_taker(teacher)

    assert (written, shared) == (donor().stat().st_size, 0)
    mine = Layout(pools_of("taker")).object(donor().stem)
    assert mine.stat().st_ino != donor().stat().st_ino


def test_a_donor_that_was_damaged_meanwhile_gives_nothing(monkeypatch, teacher):
    monkeypatch.setattr(Disk, "clone", SharingDisk.clone)
    file = donor()
    whole = seal_of_file(file)
    content = bytearray(file.read_bytes())
    content[content.index(teacher.weight.detach().numpy().tobytes())] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)

    _, written, shared = start_taker(teacher)

    assert (written, shared) == (file.stat().st_size, 0)
    assert seal_of_file(Layout(pools_of("taker")).object(file.stem)) == whole


def test_a_donor_that_is_gone_gives_nothing(monkeypatch, teacher):
    monkeypatch.setattr(Disk, "clone", SharingDisk.clone)
    size = donor().stat().st_size
    donor().unlink()

    _, written, shared = start_taker(teacher)

    assert (written, shared) == (size, 0)
