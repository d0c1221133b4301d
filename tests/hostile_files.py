"""Checkpoint files by somebody who means harm: right checksums, and nothing that runs code."""

import codecs
import io
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_CENTRAL_START_FIELD = 42
_CENTRAL_HEADER_BYTES = 46


class Call:
    """Pickled as a call of something, with a state to set afterwards where there is one."""

    def __init__(self, function: Any, *given: Any, state: Any = None) -> None:
        self._reduced = (function, given) if state is None else (function, given, state)

    def __reduce__(self) -> Any:
        return self._reduced


def saved(content: object) -> bytes:
    """Return what ``torch.save`` writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def entries_of(content: bytes) -> dict[str, bytes]:
    """Return the entries of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive with right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def with_pickle(operations: bytes) -> bytes:
    """Return a file whose pickle is these operations."""
    return zipped({**entries_of(saved({})), "archive/data.pkl": b"\x80\x02" + operations + b"."})


def storage(elements: int) -> Any:
    """Return what a pickle holds of a float32 tensor's memory."""
    memory = torch.zeros(elements).untyped_storage()
    return torch.storage.TypedStorage(wrap_storage=memory, dtype=torch.float32, _internal=True)


def tensor(shape: Any, stride: Any, *, offset: Any = 0, elements: int = 4) -> Call:
    """Return a tensor as a pickle makes it."""
    rest = (offset, shape, stride, False, OrderedDict())
    return Call(torch._utils._rebuild_tensor_v2, storage(elements), *rest)


def tensor_with(attributes: dict[Any, Any]) -> Call:
    """Return a tensor with attributes as a pickle makes it."""
    arguments = (storage(16), 0, (2, 8), (8, 1), False, OrderedDict())
    return Call(
        torch._tensor._rebuild_from_type_v2,
        torch._utils._rebuild_tensor_v2,
        torch.Tensor,
        arguments,
        attributes,
    )


def parameter_with(attributes: Any) -> Call:
    """Return a parameter with attributes as a pickle makes it."""
    return Call(
        torch._utils._rebuild_parameter_with_state, torch.zeros(2), True, OrderedDict(), attributes
    )


def quantized(scales: Any) -> Call:
    """Return a quantized tensor with a scheme of these scales."""
    scheme = (torch.per_channel_affine, scales, scales, 0)
    return Call(
        torch._utils._rebuild_qtensor, storage(4), 0, (4,), (1,), scheme, False, OrderedDict()
    )


def two_tables(first: bytes, second: bytes) -> bytes:
    """Return an archive whose locator leads torch to the table of one, zipfile to the other's."""
    (start, first_table, count) = _split(first)
    (body, second_table, second_count) = _split(second)
    second_table = _moved(second_table, by=len(start))
    content = start + body
    second_place = len(content)
    content += second_table
    record = len(content)
    content += _record_64(second_count, len(second_table), second_place)
    first_place = len(content)
    content += first_table + _record_64(count, len(first_table), first_place)
    content += _LOCATOR_64.pack(b"PK\6\7", 0, record, 1)
    return content + _END.pack(b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFF_FFFF] * 2, 0)


def _split(content: bytes) -> tuple[bytes, bytes, int]:
    _, *_, count, length, place, _ = _END.unpack(content[-_END.size :])
    return content[:place], content[place : place + length], count


def _moved(table: bytes, *, by: int) -> bytes:
    changed, place = bytearray(table), 0
    while place < len(changed):
        field = place + _CENTRAL_START_FIELD
        (start,) = struct.unpack_from("<L", changed, field)
        struct.pack_into("<L", changed, field, start + by)
        place += _CENTRAL_HEADER_BYTES + sum(struct.unpack_from("<3H", changed, place + 28))
    return bytes(changed)


def _record_64(count: int, length: int, place: int) -> bytes:
    return _END_64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, place)


def hostile_files() -> Iterator[tuple[str, bytes, str]]:
    """Yield files that torch alone would take: name, content, and what is said of it."""
    good = saved(nn.Linear(2, 2).state_dict())
    entries = entries_of(good)
    text = "".join(chr(0x4E00 + number) for number in range(8000))
    bytes_of_memory = saved({"w": Call(bytearray, 2 << 30)})
    many = {f"archive/data/{number}": b"" for number in range(10)}
    yield (
        "bytearray",
        bytes_of_memory,
        "holds a bytearray, which is not a tensor or primitive and could take all memory",
    )
    yield (
        "punycode",
        saved({"w": Call(codecs.encode, text, "punycode")}),
        "encodes a text in another way than torch.save does",
    )
    yield (
        "overlapping strides",
        saved({"w": tensor((3000, 3000, 1000), (1, 1, 1), elements=9000)}),
        "claims 36,000,000,000 bytes in its tensors, far more than it has",
    )
    yield (
        "attributes of a tensor",
        saved({"w": tensor_with({"detach": 1, "stride": 1})}),
        "sets 'detach' of Parameter, which hides what the class does",
    )
    yield (
        "attributes of a parameter",
        saved({"w": parameter_with({"shape": 1})}),
        "sets 'shape' of Parameter, which hides what the class does",
    )
    yield (
        "attributes of a dict",
        saved(Call(OrderedDict, state={"items": 1})),
        "sets 'items' of OrderedDict, which hides what the class does",
    )
    yield (
        "keys of one hash",
        saved({"w": {number * (2**61 - 1): 0 for number in range(2, 11_000)}}),
        "has over 10,000 number keys, which can be chosen to be slow",
    )
    yield (
        "set of one hash",
        saved({"w": {number * (2**61 - 1) for number in range(2, 11_000)}}),
        "has over 10,000 number keys, which can be chosen to be slow",
    )
    yield (
        "key that is a tuple",
        saved({"w": {(1, 2): 0}}),
        "has a key of type tuple, expected str",
    )
    yield (
        "a second pickle",
        zipped({"archive/x/data.pkl": entries["archive/data.pkl"], **entries_of(bytes_of_memory)}),
        "holds a bytearray, which is not a tensor or primitive and could take all memory",
    )
    yield (
        "attributes in a pair",
        saved({"w": parameter_with(({"shape": 1}, None))}),
        "cannot be read: its pickle is damaged: tuple in the place of dict",
    )
    yield (
        "attributes in an OrderedDict",
        saved({"w": parameter_with(OrderedDict(shape=1))}),
        "cannot be read: its pickle is damaged: OrderedDict in the place of dict",
    )
    yield (
        "a scale that is a list",
        saved({"w": quantized([1.0] * 100)}),
        "cannot be read: its pickle is damaged: a quantized tensor has no scheme",
    )
    yield (
        "parts that are lists",
        saved({"w": Call(torch._utils._rebuild_sparse_tensor, torch.sparse_coo, ([1], [1], (1,)))}),
        "cannot be read: its pickle is damaged: list in the place of tuple",
    )
    yield (
        "a memo that is chosen",
        with_pickle(b"}r\x05\0\0\0"),
        "cannot be read: its pickle is damaged: its memo is not numbered as pickle does",
    )
    yield (
        "two tables of contents",
        two_tables(zipped(entries), zipped(entries, zipfile.ZIP_DEFLATED)),
        "has a table of contents that can be read in two ways",
    )
    yield (
        "comment",
        good[:-2] + struct.pack("<H", 4) + b"more",
        "is damaged: bytes follow its table of contents",
    )
    yield (
        "names that differ in case",
        zipped({**entries, "archive/DATA/0": entries["archive/data/0"]}),
        "holds two entries of one name",
    )
    yield (
        "two folders",
        zipped({"other/version": b"3\n", **entries}),
        "is a zip archive without data.pkl, so no file of torch.save",
    )
    yield (
        "a name cut by NUL",
        zipped({**entries, **many}).replace(b"archive/data/9", b"archive/data\0x"),
        "has a table of contents that can be read in two ways",
    )


def floods() -> Iterator[tuple[str, bytes, str]]:
    """Yield files that take seventy times their size in memory, as ``hostile_files``."""
    for operation in b"]}(":
        yield (
            f"a million times {operation:c}",
            with_pickle(b"](" + bytes([operation]) * 1_200_000 + b"e"),
            "describes far more lists, dicts and numbers than weights need",
        )
