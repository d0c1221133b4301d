"""Fuzzing targets that are checkpoint files from anywhere: damaged ones, and crafted ones."""

import functools
import io
import os
import pickle
import random
import re
import struct
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fuzzing.cases import Target
from fuzzing.damage import damage_bytes, damage_tree, strange_text, strange_value
from fuzzing.guard import CANARY
from hostile_files import Call, entries_of, saved, tensor, zipped
from safetensors.torch import save as save_safetensors
from torch import nn

from pymodules_core import apply_weights, match_weights, read_state_dict
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.errors import PymodulesError

_BOMB_BYTES = 128 << 20


def make_net(seed: int = 0) -> nn.Module:
    """Return a module with parameters, buffers and metadata."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def digest_of(state: Any) -> str:
    """Return the digest of weights."""
    return Content(state).digest_now()


class _Reader(Target):
    """Reads a file and loads it into a module, as initial weights are."""

    file_name = "net.pt"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.file = folder / self.file_name
        self.net = make_net(1)
        self.before = digest_of(self.net.state_dict())
        # torch shows what it refuses, and imports what it shows it with.
        repr(self.net[0].weight)

    def load(self) -> None:
        """Load the file; where that fails, the module has to be as it was."""
        try:
            state = read_state_dict(self.file)
            matched = match_weights(state, self.net, module_name="net", source=self.file)
            apply_weights([(self.net, *matched)])
        except PymodulesError:
            assert digest_of(self.net.state_dict()) == self.before, "half a load"
            raise

    def forget(self) -> None:
        """Bring the module back to where it was."""
        self.net.load_state_dict(make_net(1).state_dict())


class DamagedFile(_Reader):
    """A checkpoint file that was whole once: what is read of it is what was saved, or nothing."""

    name, share = "damaged .pt", 16_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        state = make_net().state_dict()
        self._saved = digest_of(state)
        self._content = saved(state)

    def prepare(self, choice: random.Random) -> object:
        self.file.write_bytes(damage_bytes(self._content, choice))
        return None

    def try_it(self, given: Any) -> None:
        try:
            self.load()
            assert digest_of(self.net.state_dict()) == self._saved, "other weights than were saved"
        finally:
            self.forget()


class CraftedFile(_Reader):
    """A file whose checksums are right, by a person who wants to run code or to do harm."""

    name, share = "crafted .pt", 14_000

    def prepare(self, choice: random.Random) -> object:
        way = choice.randrange(5)
        if way == 0:
            content = saved(_crafted_state(choice))
        elif way == 1:
            entries = entries_of(saved(make_net().state_dict()))
            entries["archive/data.pkl"] = damage_bytes(entries["archive/data.pkl"], choice)
            content = zipped(entries)
        elif way == 2:
            entries = entries_of(saved(make_net().state_dict()))
            entries["archive/data.pkl"] = _program(choice)
            content = zipped(entries)
        elif way == 3:
            content = _crafted_archive(choice)
        else:
            content = saved(damage_tree({**make_net().state_dict()}, choice, _strange_leaf))
        self.file.write_bytes(content)
        return None

    def try_it(self, given: Any) -> None:
        try:
            self.load()
            for value in self.net.state_dict().values():
                value.sum()
        finally:
            self.forget()


class DamagedSafetensors(_Reader):
    """A file without checksums: changed values cannot be reported, all else is."""

    name, share = "damaged .safetensors", 4_000
    file_name = "net.safetensors"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._content = save_safetensors(make_net().state_dict())

    def prepare(self, choice: random.Random) -> object:
        self.file.write_bytes(damage_bytes(self._content, choice))
        return None

    def try_it(self, given: Any) -> None:
        try:
            self.load()
            own = make_net(1).state_dict()
            found = self.net.state_dict()
            assert [(k, v.shape, v.dtype) for k, v in found.items()] == [
                (k, v.shape, v.dtype) for k, v in own.items()
            ]
        finally:
            self.forget()


def _crafted_state(choice: random.Random) -> Any:
    """Return a state dict with something in it that is called on loading, or that lies."""
    state: dict[Any, Any] = {**make_net().state_dict()}
    evil = choice.choice(_EVIL)(choice)
    way = choice.randrange(5)
    if way == 0:
        return evil
    if way == 1:
        state["0.weight"] = evil
    elif way == 2:
        state["extra"] = [evil]
    elif way == 3:
        state = {"state_dict": state, "epoch": evil}
    else:
        ordered = OrderedDict(state)
        ordered._metadata = evil  # type: ignore[attr-defined]
        return ordered
    return state


_MARK = f"touch {CANARY}"
_EVIL: tuple[Callable[[random.Random], Any], ...] = (
    lambda _: Call(os.system, _MARK),
    lambda _: Call(eval, f"__import__('os').system('{_MARK}')"),
    lambda _: Call(exec, f"import {CANARY}"),
    lambda _: Call(__import__, CANARY),
    lambda _: Call(subprocess.Popen, ["touch", CANARY]),
    lambda _: Call(open, CANARY, "w"),
    lambda _: Call(getattr, "text", "upper"),
    lambda _: Call(torch.load, "/etc/passwd"),
    lambda _: Call(functools.partial, os.system, _MARK),
    lambda _: Call(bytearray, 1 << 40),
    lambda _: Call(torch.zeros, 1 << 40),
    lambda _: Call(pickle.loads, b"cos\nsystem\n."),
    lambda _: nn.Linear(2, 2),
    lambda _: Path("/etc/passwd"),
    lambda _: torch.device("cuda:7"),
    lambda _: torch.nn.Parameter(torch.zeros(2)),
    lambda _: tensor((10**15,), (0,)),
    lambda _: tensor((2**62, 2), (0, 0)),
    lambda _: tensor((4, 3), (0, 0)),
    lambda _: tensor((4, 3), (3, 1)),
    lambda _: tensor((-1,), (1,)),
    lambda _: tensor((2,), (-1,)),
    lambda _: tensor((2,), (1,), offset=-3),
    lambda _: tensor((2,), (1,), offset=2**62),
    lambda _: tensor("ab", None),
    lambda _: torch.zeros(1).expand(10**9),
    lambda _: torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**12,)),
    lambda _: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    lambda _: torch.empty(10**12, device="meta"),
    lambda _: torch.zeros(3, dtype=torch.complex64).conj(),
    strange_value,
)


def _strange_leaf(choice: random.Random) -> Any:
    """Return a tensor that does not fit, or a value that is none."""
    return choice.choice(
        (
            torch.full((4, 3), float("nan")),
            torch.full((4,), float("inf"), dtype=torch.float64),
            torch.zeros(4, 3, dtype=torch.int64),
            torch.zeros(3, 4),
            torch.zeros(()),
            torch.zeros(0),
            torch.zeros(4, 3, dtype=torch.complex64),
            {"nested": torch.zeros(2)},
            strange_value(choice),
        )
    )


@functools.cache
def _bomb() -> bytes:
    entries = entries_of(saved(make_net().state_dict()))
    entries["archive/data/0"] = bytes(_BOMB_BYTES)
    return zipped(entries, zipfile.ZIP_DEFLATED)


def _crafted_archive(choice: random.Random) -> bytes:
    """Return an archive that is one of ``torch.save`` but for one thing."""
    entries = entries_of(saved(make_net().state_dict()))
    name = choice.choice(list(entries))
    way = choice.randrange(9)
    if way == 0:
        return _bomb() if choice.random() < 0.1 else zipped(entries, zipfile.ZIP_DEFLATED)
    if way == 1:
        del entries[name]
    elif way == 2:
        entries[name] = entries[name][: choice.randrange(len(entries[name]) + 1)]
    elif way == 3:
        entries[name] += choice.randbytes(choice.randrange(1, 100))
    elif way == 4:
        entries[_entry_name(choice)] = entries[name]
    elif way == 5:
        entries["archive/code/x.py"] = b"import os"
    elif way == 6:
        entries = {f"{_entry_name(choice)}/{key}": content for key, content in entries.items()}
    elif way == 7:  # two entries of one name
        file = io.BytesIO(zipped(entries))
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(name, choice.randbytes(48))
        return file.getvalue()
    else:  # an entry that says it is longer than the file
        content = bytearray(zipped(entries))
        places = [match.start() for match in re.finditer(b"PK\x01\x02", bytes(content))]
        place = choice.choice(places) + choice.choice((20, 24, 42))
        content[place : place + 4] = struct.pack("<I", choice.choice((0, 100, 2**31, 2**32 - 1)))
        return bytes(content)
    return zipped(entries)


def _entry_name(choice: random.Random) -> str:
    text = strange_text(choice).encode("utf-8", "ignore").decode()
    return text.replace("\0", "") or "x"


_GLOBALS = (
    *("os system", "posix system", "builtins eval", "builtins getattr", "subprocess Popen"),
    *(f"{CANARY} run", "torch load", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"),
    *("collections OrderedDict", "torch Size", "torch device", "torch.nn.parameter Parameter"),
    *("torch._utils _rebuild_parameter", "torch.serialization _get_layout", "builtins set"),
    *("torch._tensor _rebuild_from_type_v2", "torch storage", "nothing at_all", "\u00e9 \u00e9"),
)


def _program(choice: random.Random) -> bytes:
    """Return operations of a pickle in some order, most of which ``weights_only`` knows."""
    count = choice.randrange(1, 30)
    return b"\x80\x02" + b"".join(choice.choice(_OPERATIONS)(choice) for _ in range(count)) + b"."


_OPERATIONS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda c: b"c" + c.choice(_GLOBALS).replace(" ", "\n").encode() + b"\n",
    lambda c: b"X" + struct.pack("<I", 3) + c.choice((b"abc", b"cpu", b"1.0", b"0\0\xff")),
    lambda c: b"X" + struct.pack("<I", c.choice((0, 2**31, 2**32 - 1))),
    lambda c: b"\x8a" + bytes([c.choice((0, 1, 8, 255))]) + c.randbytes(8),
    lambda c: b"\x8b" + struct.pack("<i", c.choice((-1, 4, 2**31 - 1))) + c.randbytes(4),
    lambda c: c.choice((b"q", b"h")) + bytes([c.randrange(4)]),
    lambda c: c.choice((b"r", b"j")) + struct.pack("<I", c.choice((0, 3, 2**31, 2**32 - 1))),
    lambda c: b"K" + bytes([c.randrange(256)]),
    lambda c: b"J" + struct.pack("<i", c.choice((-1, 0, 2**31 - 1))),
    lambda c: b"G" + c.randbytes(8),
    lambda c: c.choice((b"}", b"]", b")", b"(", b"N", b"\x88", b"\x89", b"\x85", b"\x86", b"\x87")),
    lambda c: c.choice((b"R", b"b", b"s", b"u", b"a", b"e", b"t", b"Q", b"0", b"2", b"\x81")),
)


TARGETS = (DamagedFile, CraftedFile, DamagedSafetensors)
