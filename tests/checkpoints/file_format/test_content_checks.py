"""Checkpoint files whose container is whole and whose content is not a state dict, or too large."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from pymodules_core import read_state_dict
from pymodules_core.errors import (
    CheckpointError,
    CheckpointFileError,
    CheckpointNotFoundError,
)

AGAIN = "save it with torch.save(module.state_dict(), file)"
GIVE_A_FILE = "give a file that torch.save(module.state_dict(), file) wrote"


def refusal(content: object) -> CheckpointFileError:
    with Path("net.pt").open("wb") as file:
        torch.save(content, file)
    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(Path("net.pt"))
    return caught.value


def rewrite_entry(name: str, change) -> None:
    """Change one entry of ``net.pt``, with a checksum that fits."""
    with zipfile.ZipFile("net.pt") as archive:
        contents = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile("net.pt", "w") as archive:
        for entry, content in contents.items():
            archive.writestr(entry, change(content) if entry == name else content)


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (torch.ones(2), "holds Tensor, expected a state dict"),
        ([torch.ones(2)], "holds list, expected a state dict"),
        (None, "holds NoneType, expected a state dict"),
        ({1: torch.ones(2)}, "has a key of type int, expected str"),
        ({"w": {1, 2}}, "w is set, expected a tensor or nested primitives"),
        ({"w": torch.float16}, "w is dtype, expected a tensor or nested primitives"),
        ({"w": [1, [1j]]}, "w is list, expected a tensor or nested primitives"),
        ({"\x1b[2Jw\n": 1j}, "'\\x1b[2Jw\\n' is complex, expected a tensor or nested primitives"),
        ({"w" * 500: 1j}, f"{'w' * 100}… is complex, expected a tensor or nested primitives"),
    ],
    ids=[
        "tensor",
        "list",
        "None",
        "key no text",
        "set",
        "dtype",
        "nested complex",
        "key with control characters",
        "long key",
    ],
)
def test_content_that_is_not_a_state_dict_is_reported(content, what):
    error = refusal(content)

    assert str(error) == f"net.pt: {what}\n  fix: {AGAIN}"
    assert isinstance(error, CheckpointError)


def test_nested_primitives_and_tensors_are_read_back():
    content = {"w": torch.ones(2), "extra": {"steps": [1, 2.5, None, ("a", b"b")], 3: True}}
    with Path("net.pt").open("wb") as file:
        torch.save(content, file)

    state = read_state_dict(Path("net.pt"))

    assert torch.equal(state["w"], torch.ones(2))
    assert state["extra"] == content["extra"]


def test_a_list_that_holds_itself_is_refused():
    ring: list[object] = []
    ring.append(ring)

    error = refusal({"w": ring})

    assert str(error) == (
        f"net.pt: w is list, expected a tensor or nested primitives\n  fix: {AGAIN}"
    )


def test_one_list_held_a_billion_times_is_refused_at_once():
    item: list[object] = [1]
    for _ in range(60):
        item = [item, item]

    error = refusal({"w": item})

    assert str(error) == (
        "net.pt: holds the same lists or dicts again and again, 3,458,764,513,820,540,928 items in "
        f"all\n  fix: {AGAIN}"
    )


def test_metadata_that_load_state_dict_would_trip_over_is_refused():
    state = nn.BatchNorm1d(2).state_dict()
    state._metadata = {"": 2}

    error = refusal(state)

    assert str(error) == (
        "net.pt: its _metadata is not what torch.save writes: expected a dict of dicts\n"
        f"  fix: {AGAIN}"
    )


def test_metadata_is_read_back():
    state = nn.BatchNorm1d(2).state_dict()
    with Path("net.pt").open("wb") as file:
        torch.save(state, file)

    assert read_state_dict(Path("net.pt"))._metadata == {"": {"version": 2}}


@pytest.mark.parametrize("content", [b"", b"\x80\x02"], ids=["empty", "cut short"])
def test_a_pickle_that_ends_early_is_damaged(content):
    torch.save({"w": torch.ones(2)}, "net.pt")
    rewrite_entry("net/data.pkl", lambda _: content)

    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(Path("net.pt"))

    assert str(caught.value) == (
        "net.pt: cannot be read: its pickle is damaged: pickle exhausted before seeing STOP\n"
        f"  fix: take an earlier pool, or {AGAIN}"
    )


def test_a_storage_that_is_too_short_gives_no_memory_of_others():
    torch.save({"w": torch.ones(4)}, "net.pt")
    rewrite_entry("net/data/0", lambda content: content[:4])

    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(Path("net.pt"))

    assert str(caught.value).startswith("net.pt: cannot be read: RuntimeError: record size (4 byte")


def test_a_tensor_that_claims_more_than_its_storage_gives_no_memory_of_others():
    torch.save({"w": torch.ones(4)}, "net.pt")
    # The shape (4,) in the pickle becomes (200,).
    rewrite_entry("net/data.pkl", lambda content: content.replace(b"K\x04\x85", b"K\xc8\x85"))

    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(Path("net.pt"))

    assert str(caught.value).startswith("net.pt: cannot be read: RuntimeError: Trying to resize")


def test_a_tensor_of_another_device_is_read_on_the_cpu():
    torch.save({"w": torch.ones(2)}, "net.pt")
    # X and the length come before a text: "cpu" becomes "cuda:0".
    rewrite_entry(
        "net/data.pkl",
        lambda content: content.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0"),
    )

    state = read_state_dict(Path("net.pt"))

    assert state["w"].device == torch.device("cpu")
    assert state["w"].tolist() == [1, 1]


def test_a_folder_is_refused():
    Path("net.pt").mkdir()

    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(Path("net.pt"))

    assert str(caught.value) == f"net.pt: is a folder, expected a file\n  fix: {GIVE_A_FILE}"


def test_a_pipe_is_refused_and_not_waited_for():
    os.mkfifo("net.pt")

    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(Path("net.pt"))

    assert str(caught.value) == (
        f"net.pt: is a device, pipe or socket, expected a file\n  fix: {GIVE_A_FILE}"
    )


def test_a_file_above_the_limit_is_refused():
    torch.save({"w": torch.ones(500)}, "net.pt")
    size = Path("net.pt").stat().st_size

    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(Path("net.pt"), most_bytes=2000)

    assert str(caught.value) == (
        f"net.pt: is too large: it has {size:,} bytes, and memory for 2,000 is free\n"
        "  fix: free memory, or take a file with fewer weights"
    )
    assert torch.equal(read_state_dict(Path("net.pt"), most_bytes=size)["w"], torch.ones(500))


def test_a_file_larger_than_the_free_memory_is_refused():
    with Path("net.pt").open("wb") as file:
        file.truncate(2**43)

    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(Path("net.pt"))

    assert str(caught.value).startswith(
        "net.pt: is too large: it has 8,796,093,022,208 bytes, and memory for "
    )


def test_a_link_to_nothing_is_reported():
    Path("net.pt").symlink_to("gone.pt")

    with pytest.raises(CheckpointNotFoundError) as caught:
        read_state_dict(Path("net.pt"))

    assert str(caught.value) == (
        "net.pt: is a link to nothing\n  fix: replace the link by the file itself"
    )


@pytest.fixture
def as_nobody():
    """Be a user who may not read everything."""
    me = os.geteuid()
    os.seteuid(me or 65534)
    yield
    os.seteuid(me)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="not on Windows")
def test_a_file_that_may_not_be_read_is_reported(request):
    torch.save({"w": torch.ones(2)}, "net.pt")
    Path("net.pt").chmod(0)
    request.getfixturevalue("as_nobody")

    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(Path("net.pt"))

    assert str(caught.value) == (
        "net.pt: cannot be read: Permission denied\n  fix: make it a readable file"
    )
