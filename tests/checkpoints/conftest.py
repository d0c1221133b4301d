"""Both ways of making checkpoint files: the file buffer, and ``torch.save`` where it has to do."""

import io
import zipfile

import pytest
import torch

from pymodules_core.checkpoints.file_buffer import making


def save_in_another_layout(state, file, *, save=torch.save) -> None:
    """Write what ``torch.save`` writes, under other names and with other alignment."""
    written = io.BytesIO()
    save(state, written)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            target.writestr(name.replace("archive/", "model/"), source.read(name))


@pytest.fixture
def another_layout(monkeypatch):
    """A torch that writes files in a layout which the buffer does not know."""
    monkeypatch.setattr(torch, "save", save_in_another_layout)
    making.is_layout_known.cache_clear()
    yield
    making.is_layout_known.cache_clear()


@pytest.fixture(params=["buffer", "plain"])
def both_ways(request):
    if request.param == "plain":
        request.getfixturevalue("another_layout")
