"""Files that are not checkpoint, or no longer one: each gets one message that says which."""

import io
import os
import pickle
import traceback
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pymodules_core import read_state_dict
from pymodules_core.errors import CheckpointFileError, CheckpointNotFoundError, PymodulesError

AGAIN = "save it with torch.save(module.state_dict(), file)"
IN_SCRIPT = f"where you trust it, load it in a script of yours and there {AGAIN}"
GET_AGAIN = "download or copy it again, or take another file"
GET_WHOLE = "take an earlier pool, or copy the file again"


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


GOOD = saved({"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3)})


def rewritten(content=GOOD, *, compression=zipfile.ZIP_STORED, rename=("", ""), **entries) -> bytes:
    """Copy an archive with other contents for some entries; ``_`` stands for ``/`` and ``.``."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", compression) as new,
    ):
        for name in old.namelist():
            key = name.removeprefix("archive/").replace("/", "_").replace(".", "_")
            new.writestr(name.replace(*rename), entries.get(key, old.read(name)))
    return buffer.getvalue()


def refusal(content: bytes, path: Path = Path("net.pt")) -> CheckpointFileError:
    path.write_bytes(content)
    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(path)
    return caught.value


class RunsCode:
    """A pickle of this calls a function when it is loaded."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_missing_file_is_reported_with_what_exists():
    for name in ("encoder.pt", "head.pt", ".hidden"):
        Path(name).touch()

    with pytest.raises(CheckpointNotFoundError) as caught:
        read_state_dict(Path("encodr.pt"))

    assert str(caught.value) == (
        "encodr.pt: there is no such checkpoint; . holds: encoder.pt, head.pt\n"
        "  closest match: encoder.pt\n"
        "  fix: write 'encoder.pt'"
    )
    assert isinstance(caught.value, FileNotFoundError)
    assert (caught.value.found, caught.value.closest) == ("encodr.pt", "encoder.pt")


def test_a_missing_folder_is_reported_as_such():
    with pytest.raises(CheckpointNotFoundError) as caught:
        read_state_dict(Path("ckps/net.pt"))

    assert str(caught.value) == (
        "ckps/net.pt: there is no such checkpoint, and no folder ckps\n"
        "  fix: make the folder and put net.pt there"
    )


@pytest.mark.parametrize(
    ("content", "kind", "fix"),
    [
        (b"", "empty", GET_AGAIN),
        (GOOD[:700], "a zip archive cut short or damaged", GET_AGAIN),
        (GOOD[:700] + bytes(len(GOOD) - 700), "a zip archive cut short or damaged", GET_AGAIN),
        (bytes(4096), "filled with NUL bytes", GET_AGAIN),
        (b"weights are in the other folder\n", "text", GET_AGAIN),
        ("häufig: größer\n".encode() * 40, "text", GET_AGAIN),
        (b"\n<!DOCTYPE html>\n<html lang='en'>", "an HTML page", GET_AGAIN),
        (b"\xef\xbb\xbf<html>", "an HTML page", GET_AGAIN),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 97\n",
            "a git LFS pointer",
            "git lfs pull",
        ),
        (pickle.dumps({"w": 1}), "a bare pickle, or of a torch before 1.6", IN_SCRIPT),
        (
            saved({"w": torch.ones(1)}, _use_new_zipfile_serialization=False),
            "a bare pickle, or of a torch before 1.6",
            IN_SCRIPT,
        ),
        (
            b'\x40\0\0\0\0\0\0\0{"weight":{"dtype":"F32"}}',
            "a safetensors file",
            "call it .safetensors",
        ),
        (b"\x89PNG\r\n\x1a\n\xff\xd8", "no file of torch.save", GET_AGAIN),
    ],
    ids=[
        "empty",
        "truncated",
        "NUL-filled tail",
        "NUL-filled",
        "text",
        "text cut within a character",
        "HTML",
        "HTML with a byte order mark",
        "LFS pointer",
        "pickle",
        "old torch",
        "safetensors",
        "picture",
    ],
)
def test_a_file_that_is_not_an_archive_is_reported_with_what_it_is(content, kind, fix):
    error = refusal(content)

    assert str(error) == f"net.pt: is not a checkpoint: it is {kind}\n  fix: {fix}"
    assert (error.found, error.file) == (kind, Path("net.pt"))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            rewritten(rename=("data.pkl", "notes.txt")),
            "is a zip archive without data.pkl, so no file of torch.save",
        ),
        (
            rewritten(compression=zipfile.ZIP_DEFLATED),
            "holds compressed entries, which torch.save never writes",
        ),
        (GOOD.replace(b"archive/data/1", b"archive/data/0"), "holds two entries of one name"),
    ],
    ids=["other zip", "deflated", "duplicate"],
)
def test_an_archive_that_torch_did_not_write_is_refused(content, what):
    error = refusal(content)

    assert str(error) == f"net.pt: {what}\n  fix: {AGAIN}"


def test_an_archive_that_lies_about_its_sizes_is_refused_before_it_is_read():
    entries = zipfile.ZipFile(io.BytesIO(GOOD)).infolist()
    sizes = GOOD.rindex(b"PK\x01\x02") + 20
    content = GOOD[:sizes] + (2**30).to_bytes(4, "little") * 2 + GOOD[sizes + 8 :]

    error = refusal(content)

    total = 2**30 + sum(entry.file_size for entry in entries[:-1])
    assert str(error) == (
        f"net.pt: its entries add up to {total:,} bytes in a file of {len(GOOD):,}\n  fix: {AGAIN}"
    )


def test_a_flipped_bit_in_the_weights_is_caught_by_the_checksum():
    place = GOOD.index(torch.arange(6.0).numpy().tobytes()) + 6
    damaged = bytearray(GOOD)
    damaged[place] ^= 1

    # torch alone takes it.
    assert torch.load(io.BytesIO(damaged), weights_only=True)["weight"][0, 1] != 1
    assert str(refusal(bytes(damaged))) == (
        f"net.pt: is damaged: the checksum of archive/data/0 does not match\n  fix: {GET_WHOLE}"
    )


def load_with_flipped_bit(bit: int) -> None:
    content = bytearray(GOOD)
    content[bit // 8] ^= 1 << bit % 8
    Path("net.pt").write_bytes(content)
    expected = torch.load(io.BytesIO(GOOD), weights_only=True)

    try:
        state = read_state_dict(Path("net.pt"))
    except PymodulesError:
        return

    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert all(state[key].dtype == expected[key].dtype for key in expected)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.integers(0, 8 * len(GOOD) - 1))
def test_a_flipped_bit_is_refused_or_changes_no_weight(bit):
    load_with_flipped_bit(bit)


def test_no_flipped_bit_of_an_entrys_header_changes_a_weight():
    # No checksum is over it: one bit made an entry a folder, and its weights whatever memory held.
    name = GOOD.rindex(b"archive/data/0")
    start = GOOD.rindex(b"PK\x01\x02", 0, name)

    for bit in range(8 * start, 8 * (name + 14)):
        load_with_flipped_bit(bit)


def test_an_entry_that_is_called_a_folder_is_refused():
    place = GOOD.index(b"PK\x01\x02") + 38

    error = refusal(GOOD[:place] + b"\x10" + GOOD[place + 1 :])

    assert str(error) == (
        f"net.pt: is damaged: its table of contents calls an entry a folder\n  fix: {GET_WHOLE}"
    )


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (saved({"w": RunsCode()}), f"{os.name}.mkdir"),
        (saved({"state_dict": {}, "args": Namespace(lr=1)}), "argparse.Namespace"),
        (
            rewritten(data_pkl=pickle.dumps({"w": RunsCode()}, protocol=4)),
            f"{os.name}.mkdir",
        ),
    ],
    ids=["function", "class", "newer pickle"],
)
def test_what_could_run_code_is_named_and_not_run(content, name):
    error = refusal(content)

    assert str(error) == (
        f"net.pt: holds {name}, which is not a tensor or primitive and could run code\n"
        f"  fix: {IN_SCRIPT}"
    )
    assert error.found == name
    assert not Path("executed").exists()


def test_no_one_is_advised_to_load_without_weights_only():
    error = refusal(saved({"w": RunsCode()}))

    # The whole of it: Python prints a chained error too, and torch's advises it.
    assert "weights_only=False" not in "".join(traceback.format_exception(error))
    assert "`weights_only`" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"epoch": torch.ones(1), "model": nn.ReLU()}, "torch.nn.modules.activation.ReLU"),
    ],
    ids=["module", "module in a dict"],
)
def test_a_whole_pickled_module_is_reported_with_the_way_to_save_it(content, name):
    error = refusal(saved(content))

    assert str(error) == (
        f"net.pt: holds a whole pickled module, {name}, expected a state dict\n  fix: {IN_SCRIPT}"
    )


# What torch deprecates, people still have files of.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_reported_with_the_way_to_save_it():
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), "net.pt")

    error = refusal(Path("net.pt").read_bytes())

    assert str(error) == f"net.pt: is a TorchScript program, expected a state dict\n  fix: {AGAIN}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_program_is_reported_with_the_way_to_save_it():
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), "net.pt2")

    error = refusal(Path("net.pt2").read_bytes())

    assert str(error) == (
        f"net.pt: is a program of torch.export, expected a state dict\n  fix: {AGAIN}"
    )
