"""Shards and indexes that somebody made up: refused, and nothing of them is executed."""

import json
import os
import pickle
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, read_state_dict
from pymodules_core.checkpoints.sharded.index import make_index
from pymodules_core.checkpoints.sharded.read import chunks_in_bytes, chunks_in_file, read_shards
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import StoredObject, encode_record, read_record
from pymodules_core.errors import CheckpointFileError

SOURCE = Path("index.pt")
Parts = list[tuple[tuple[int, ...], torch.Tensor]]


def shard_of(offsets: tuple[int, ...], part: torch.Tensor, name: str = "w") -> bytes:
    places = json.dumps({name: {"saved_offsets": offsets}})
    return save({name: part.contiguous()}, metadata={"DCP_SHARDING_INFO": places})


def note(shape: object, dtype: str = "float32") -> dict[str, object]:
    return {"$shard": "w", "shape": shape, "dtype": dtype}


def read(shape: list[int], parts: Parts) -> torch.Tensor:
    shards = [chunks_in_bytes(shard_of(*part)) for part in parts]
    return read_shards(make_index({"w": note(shape)}, {}), shards, source=SOURCE)["w"]


@st.composite
def partitions(draw) -> tuple[torch.Tensor, Parts]:
    """Cut a tensor along each of its dimensions, into a part for each cell of the grid."""
    shape = draw(st.lists(st.integers(0, 5), max_size=3))
    cuts = [sorted({0, size, *draw(st.sets(st.integers(0, size)))}) for size in shape]
    whole = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    cells = product(*([*pairwise(cut)] or [(0, 0)] for cut in cuts))
    parts = [
        (tuple(a for a, _ in cell), whole[tuple(slice(a, b) for a, b in cell)]) for cell in cells
    ]
    return whole, draw(st.permutations(parts))


@given(partitions())
def test_however_a_tensor_was_cut_it_is_put_together(case):
    whole, parts = case

    assert torch.equal(read(list(whole.shape), parts), whole)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([((0,), 2), ((3,), 2)], "of w 4 of 5 elements are there"),
        ([], "of w 0 of 5 elements are there"),
        ([((0,), 3), ((2,), 2)], "two parts of w overlap"),
        ([((0,), 3), ((4,), 2)], "a part of w lies outside of it"),
        ([((-1,), 5)], "a part of w lies outside of it"),
        ([((0, 0), 5)], "argument 2 is shorter"),
        ([((), 5)], "argument 2 is longer"),
    ],
)
def test_parts_that_do_not_make_the_whole_are_refused(parts, message):
    with pytest.raises(CheckpointFileError, match=message):
        read([5], [(offsets, torch.ones(count)) for offsets, count in parts])


def test_cells_that_overlap_are_refused():
    cells = [((0, 0), torch.ones(2, 1)), ((1, 0), torch.ones(1, 2))]

    with pytest.raises(CheckpointFileError, match="two parts of w overlap"):
        read([2, 2], cells)


def test_what_an_index_claims_takes_no_memory():
    with pytest.raises(CheckpointFileError, match="of w 1 of 1,000,000,000,000,000 elements"):
        read([10**15], [((0,), torch.ones(1))])


def test_another_dtype_than_the_index_says_is_refused():
    with pytest.raises(CheckpointFileError, match=r"w is torch\.float64, and the index says"):
        read([2], [((0,), torch.ones(2, dtype=torch.float64))])


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"pymodules_shards": 1},
        {"pymodules_shards": 1, "state": None},
        {"pymodules_shards": 1, "state": note([2])},
        {"pymodules_shards": 1, "state": {"w": note("2")}},
        {"pymodules_shards": 1, "state": {"w": note([-1, -2])}},
        {"pymodules_shards": 1, "state": {"w": note([2], "load")}},
        {"pymodules_shards": 1, "state": {"w": note([2], "no dtype")}},
        {"pymodules_shards": 1, "state": {"w": {**note([2]), "$shard": "other"}}},
    ],
)
def test_an_index_that_was_made_up_is_refused(index):
    shards = [chunks_in_bytes(shard_of((0,), torch.ones(2)))]

    with pytest.raises(CheckpointFileError, match="does not fit its shards"):
        read_shards(index, shards, source=SOURCE)


def test_an_index_of_a_newer_format_says_so():
    with pytest.raises(CheckpointFileError, match="is an index of format 2, and this version"):
        read_shards({"pymodules_shards": 2}, [], source=SOURCE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04" + bytes(100),
        pickle.dumps({"w": 1}),
        shard_of((0,), torch.ones(2))[:-1],
        b"\xff" * 8 + bytes(20),
        save({"w": torch.ones(2)}, metadata={"DCP_SHARDING_INFO": "[1]"}),
        save({"w": torch.ones(2)}, metadata={"DCP_SHARDING_INFO": '{"w": 1}'}),
        save({"w": torch.ones(2)}, metadata={"DCP_SHARDING_INFO": "{"}),
        save({"w": torch.ones(2)}, metadata={"DCP_SHARDING_INFO": "[" * 100_000}),
        save(
            {"w": torch.ones(2)}, metadata={"DCP_SHARDING_INFO": '{"w": {"saved_offsets": [[]]}}'}
        ),
    ],
    ids=range(10),
)
def test_a_shard_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "shard").write_bytes(content)
    index = make_index({"w": note([2])}, {})

    for chunks in (chunks_in_bytes(content), chunks_in_file(tmp_path / "shard")):
        with pytest.raises(CheckpointFileError, match="does not fit its shards"):
            read_shards(index, [chunks], source=SOURCE)


def write_folder(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    content = shard_of((0,), torch.ones(2))
    (folder / "a.safetensors").write_bytes(content)
    files = files or {"a.safetensors": blake3(content).hexdigest()}
    torch.save(make_index({"w": note([2])}, files), folder / "index.pt")
    return folder


def test_a_folder_that_somebody_made_is_read_like_a_file(tmp_path):
    state = read_state_dict(write_folder(tmp_path / "net", {}))

    assert torch.equal(state["w"], torch.ones(2))


def test_an_index_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    folder = write_folder(tmp_path / "net", {})
    torch.save({"pymodules_shards": 1, "state": Evil(), "files": {}}, folder / "index.pt")

    with pytest.raises(CheckpointFileError, match="could run code"):
        read_state_dict(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "", ".."])
def test_an_index_cannot_name_files_outside_its_folder(tmp_path, name):
    folder = write_folder(tmp_path / "net", {name: "0" * 64})

    with pytest.raises(CheckpointFileError, match="names shards outside its folder"):
        read_state_dict(folder)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", ""])
def test_a_record_cannot_name_parts_outside_their_folder(tmp_path, name):
    with CheckpointManager(tmp_path, ModulePool.from_modules({"a": nn.Linear(1, 1)})) as plain:
        plain.start()
    file = Layout(tmp_path).record(1)
    record = read_record(file)
    (digest,) = record.pools["last"].modules.values()
    stored = record.objects[digest]
    record.objects[digest] = StoredObject(
        size_bytes=stored.size_bytes,
        mtime_ns=stored.mtime_ns,
        checksum=stored.checksum,
        parts={name: digest},
    )
    file.chmod(0o644)
    file.write_bytes(encode_record(record))

    with pytest.raises(CheckpointFileError, match="is a damaged commit record"):
        read_record(file)
