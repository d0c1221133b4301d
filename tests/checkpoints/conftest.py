"""Both ways of making checkpoint files: the file buffer, and ``torch.save`` where it has to do."""

from functools import partial

import pytest
import torch

from pymodules_core.checkpoints.file_buffer import making
from tests.layouts import save_otherwise


@pytest.fixture
def new_process():
    """Have the layout checked as if nothing was saved yet, before and after."""
    making.is_layout_known.cache_clear()
    yield
    making.is_layout_known.cache_clear()


@pytest.fixture
def another_layout(monkeypatch, new_process):
    """A torch that writes files under other names and with other alignment."""
    monkeypatch.setattr(
        torch, "save", partial(save_otherwise, rename=("archive/", "model/"), save=torch.save)
    )


@pytest.fixture(params=["buffer", "plain"])
def both_ways(request):
    if request.param == "plain":
        request.getfixturevalue("another_layout")
