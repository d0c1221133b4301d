"""Single flipped bits and cut ends: none may pass for what was saved."""

import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, read_state_dict
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.errors import CheckpointError

FLIPS = 2000
TRUNCATIONS = 334


def damaged(content: bytes) -> Iterator[bytes]:
    """Return the content with one bit flipped, then cut short, at places of a fixed choice."""
    choice = random.Random(0)
    for _ in range(FLIPS):
        place = choice.randrange(len(content))
        yield (
            content[:place]
            + bytes([content[place] ^ 1 << choice.randrange(8)])
            + (content[place + 1 :])
        )
    for _ in range(TRUNCATIONS):
        yield content[: choice.randrange(len(content))]


def accepted(file: Path, is_accepted: Callable[[], bool]) -> list[int]:
    """Damage a file in every way, one after the other; give the ways that went unnoticed."""
    whole = file.read_bytes()
    file.chmod(0o644)
    return [
        number
        for number, content in enumerate(damaged(whole))
        if file.write_bytes(content) >= 0 and is_accepted()
    ]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))


def digest_of(module: nn.Module) -> str:
    return Content(module.state_dict()).digest_now()


def test_a_damaged_object_is_refused_and_the_module_stays_as_it_was(tmp_path, net):
    checkpoints = CheckpointManager(tmp_path, ModulePool.from_modules({"net": net}))
    checkpoints.start()
    with torch.no_grad():
        net[0].weight.zero_()
    before = digest_of(net)
    (file,) = Layout(tmp_path).objects.iterdir()

    def is_accepted() -> bool:
        try:
            checkpoints.load("last")
        except CheckpointError:
            return digest_of(net) != before
        return True

    assert accepted(file, is_accepted) == []


def test_a_damaged_view_is_reported(tmp_path, net):
    with CheckpointManager(
        tmp_path, ModulePool.from_modules({"net": net}), link="copy"
    ) as checkpoints:
        checkpoints.start()
    file = tmp_path / "last" / "net.pt"

    def is_accepted() -> bool:
        return [
            damage.path for damage in verify_store(Layout(tmp_path), digest_of_file).damages
        ] != [file]

    assert accepted(file, is_accepted) == []


def test_a_damaged_foreign_file_is_refused_or_reads_the_same(tmp_path, net):
    file = tmp_path / "net.pt"
    torch.save(net.state_dict(), file)
    saved = Content(net.state_dict()).digest_now()

    def is_accepted() -> bool:
        try:
            return Content(read_state_dict(file)).digest_now() != saved
        except CheckpointError:
            return False

    with warnings.catch_warnings():
        # torch warns of some pickles that it then refuses.
        warnings.simplefilter("ignore")
        assert accepted(file, is_accepted) == []
