import io
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import nn

from pymodules_core import CheckpointManager, ModulePool
from pymodules_core.checkpoints.file_buffer.buffer import FileBuffer
from pymodules_core.checkpoints.file_buffer.making import PlainFile, is_layout_known, make_file
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.store.checksums import checksum_of_bytes, checksum_of_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.errors import CheckpointError
from tests.layouts import save_otherwise

WEIGHT = torch.arange(24.0).view(4, 6)
STATES = {
    "plain": {"weight": WEIGHT, "steps": 3},
    "tied": {"a": WEIGHT, "b": WEIGHT},
    "views": {"columns": WEIGHT[:, ::2], "row": WEIGHT[1]},
    "expanded": {"scale": torch.tensor(2.0).expand(3, 5)},
    "dtypes": {
        "half": WEIGHT.bfloat16(),
        "mask": WEIGHT > 3,
        "lazy": torch.view_as_complex(torch.ones(3, 2)).conj(),
    },
    "empty": {"none": torch.empty(0, 4), "nested": [torch.ones(2), {"x": (1, None, "y")}]},
}


def commit_and_resume(folder) -> None:
    net = nn.Linear(3, 2, device="cpu")
    nn.init.zeros_(net.bias)
    pool = ModulePool.from_modules({"net": net})
    with CheckpointManager(folder, pool) as checkpoints:
        nn.init.zeros_(net.weight)
        checkpoints.start()
        nn.init.ones_(net.weight)
        checkpoints.commit("last", epoch=1, step=4)
    nn.init.zeros_(net.weight)

    assert verify_store(Layout(folder), digest_of_file).damages == []
    with CheckpointManager(folder, pool) as checkpoints:
        checkpoints.resume()
    assert (net.weight == 1).all()


@contextmanager
def without_crcs():
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(True)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_both_ways_name_a_content_alike_and_hold_the_same(tmp_path, state):
    buffer, plain = FileBuffer(state), PlainFile(state)

    assert plain.finish().digest == buffer.finish().digest
    for made in (buffer, plain):
        file = tmp_path / "net.pt"
        file.write_bytes(made.pages[: made.size_bytes])
        assert checksum_of_file(file) == made.finish().checksum
        found = torch.load(file, weights_only=True)
        assert Content(found).digest_now() == made.finish().digest


def test_values_in_the_place_of_a_states_own_are_saved_by_both():
    hollow = OrderedDict(a=torch.empty(3), b=torch.empty(2, 2))
    values = [torch.arange(3.0), torch.eye(2)]

    digests = {
        kind(hollow, values=iter(values)).finish().digest for kind in (FileBuffer, PlainFile)
    }

    assert digests == {FileBuffer(OrderedDict(a=values[0], b=values[1])).finish().digest}


def test_later_steps_do_not_change_what_a_plain_file_holds():
    weight = torch.zeros(3)
    file = PlainFile({"weight": weight})

    weight += 1

    assert file.finish().digest == FileBuffer({"weight": torch.zeros(3)}).finish().digest


def test_this_torch_writes_the_layout_that_the_buffer_knows(caplog):
    is_layout_known.cache_clear()

    assert is_layout_known()
    assert isinstance(make_file({"weight": WEIGHT}), FileBuffer)
    assert caplog.messages == []


@pytest.mark.usefixtures("another_layout")
def test_another_layout_is_reported_once_and_torch_saves_by_itself(caplog):
    files = [make_file({"weight": WEIGHT}) for _ in range(2)]

    assert [type(file) for file in files] == [PlainFile, PlainFile]
    (reported,) = caplog.messages
    assert reported == (
        f"torch {torch.__version__} writes checkpoint files in a layout that pymodules does not "
        "know: commits are slower, files and digests are the same. Fix: pip install -U "
        "pymodules-core"
    )


def test_a_pool_is_committed_verified_and_resumed_in_another_layout(tmp_path, request):
    commit_and_resume(tmp_path / "known")
    request.getfixturevalue("another_layout")
    commit_and_resume(tmp_path / "other")

    known, other = (
        {file.name for file in Layout(tmp_path / name).objects.iterdir()}
        for name in ("known", "other")
    )
    assert known == other


@pytest.mark.parametrize(
    "layout",
    [
        {"rename": ("archive/", "model/")},
        {"rename": ("data/", "data/tensor-")},
        {"compression": zipfile.ZIP_DEFLATED},
    ],
    ids=["another root", "other records", "compressed"],
)
def test_every_byte_counts_for_the_checksum_of_another_layout(tmp_path, layout):
    written = io.BytesIO()
    save_otherwise({"weight": WEIGHT}, written, **layout)
    file = tmp_path / "net.pt"
    file.write_bytes(written.getbuffer())
    checksum = checksum_of_file(file)

    assert checksum == checksum_of_bytes(written.getbuffer())
    for position in range(0, written.tell(), 97):
        written.getbuffer()[position] ^= 1
        assert checksum_of_bytes(written.getbuffer()) != checksum
        written.getbuffer()[position] ^= 1


@pytest.mark.usefixtures("new_process")
def test_files_that_a_resume_would_refuse_are_not_written(tmp_path, monkeypatch):
    save = partial(save_otherwise, compression=zipfile.ZIP_DEFLATED, save=torch.save)
    monkeypatch.setattr(torch, "save", save)
    pool = ModulePool.from_modules({"net": nn.Linear(3, 2)})

    with pytest.raises(CheckpointError) as caught, CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()

    assert str(caught.value) == (
        f"torch {torch.__version__} writes files that a resume would refuse: one holds compressed "
        "entries, which torch.save never writes\n"
        "  fix: pip install -U pymodules-core, or an earlier torch"
    )
    assert [*Layout(tmp_path).objects.iterdir()] == []


@pytest.mark.usefixtures("new_process")
@pytest.mark.parametrize(
    "enter", [lambda: torch.device("meta"), torch.inference_mode, without_crcs]
)
def test_what_the_caller_set_does_not_choose_how_files_are_made(tmp_path, enter, caplog):
    with enter():
        assert is_layout_known()
        commit_and_resume(tmp_path)

    assert caplog.messages == []
