"""Whether a zip archive is one that ``torch.save`` writes, and reads the same to everybody.

zipfile, which looks at a file, and torch, which loads it, find the table of contents in their own
ways; a file with two tables would be checked as one thing and loaded as another. Fields and their
order: PKWARE's ``APPNOTE.TXT`` 6.3.10, 4.3.12 to 4.3.16 and 4.5.3.
"""

import os
import struct
import zipfile
from collections.abc import Iterable
from typing import IO

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_EXTRA = struct.Struct("<HH")
_EXTRA_64 = 1
_UNKNOWN = {0xFFFF, 0xFFFF_FFFF}
_FOLDER_ATTRIBUTE = 0x10
# What zipfile takes in memory for an entry, its name included.
_ENTRY_BYTES = 800

_TWO_READINGS = "has a table of contents that can be read in two ways"
_CUT = "is damaged: its table of contents is not whole"


def find_strange_table(file: IO[bytes], *, budget_bytes: int) -> str | None:
    """Say what is wrong with the table of contents at the end of a zip archive.

    Args:
        file: The archive.
        budget_bytes: What reading the table may take in memory.

    Returns:
        Nothing where there is one table, at the very end, and as long as it says.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size - _LOCATOR_64.size - _END_64.size))
    tail = file.read()
    mark, *_, count, length, start, comment = _END.unpack(tail[-_END.size :])
    stop = size - _END.size
    if mark != b"PK\5\6" or comment:
        return "is damaged: bytes follow its table of contents"
    if tail[: -_END.size][-_LOCATOR_64.size :].startswith(b"PK\6\7"):
        stop = size - len(tail)
        record = _END_64.unpack_from(tail)
        _, _, place, _ = _LOCATOR_64.unpack_from(tail, _END_64.size)
        wide = record[-3:]
        if (
            place != stop
            or record[0] != b"PK\6\6"
            or not all(
                narrow in {value, *_UNKNOWN}
                for narrow, value in zip((count, length, start), wide, strict=True)
            )
        ):
            return _TWO_READINGS
        count, length, start = wide
    if start + length != stop:
        return _TWO_READINGS
    if count * _ENTRY_BYTES > budget_bytes:
        return f"lists {count:,} entries, far more than weights need"
    file.seek(start)
    return _find_strange_entry(file.read(length), count)


def _find_strange_entry(table: bytes, count: int) -> str | None:
    place, found = 0, 0
    while place < len(table):
        try:
            mark, *_, name, extra, comment, _, _, _, _ = _ENTRY.unpack_from(table, place)
        except struct.error:
            return _CUT
        if mark != b"PK\1\2":
            return _CUT
        place += _ENTRY.size + name + extra + comment
        found += 1
        if _count_extras(table[place - extra - comment : place - comment]) > 1:
            return _TWO_READINGS
    return None if found == count and place == len(table) else _TWO_READINGS


def _count_extras(extra: bytes) -> int:
    """Count the fields that say sizes over 4 GiB; two may say two sizes."""
    place, found = 0, 0
    while place + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, place)
        found += kind == _EXTRA_64
        place += _EXTRA.size + length
    return found


def pickle_name(archive: zipfile.ZipFile) -> str:
    """Return the entry that torch reads: it takes the folder of the first entry for all."""
    first = next(iter(archive.namelist()), "")
    return f"{first.partition('/')[0]}/data.pkl"


def find_strange_entries(archive: zipfile.ZipFile, *, size_bytes: int) -> str | None:
    """Say why ``torch.save`` of a state dict did not write an archive of one reading."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    # torch looks names up without regard to case.
    if len({name.lower() for name in names}) != len(names):
        return "holds two entries of one name"
    if kind := _find_program(names):
        return f"is a {kind}, expected a state dict"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "holds compressed entries, which torch.save never writes"
    # torch reads nothing for a folder, and leaves in the tensor what the memory held before.
    if any(entry.external_attr & _FOLDER_ATTRIBUTE for entry in entries):
        return "is damaged: its table of contents calls an entry a folder"
    # Entries that overlap, or lie about their size, would take far more memory than the file.
    total = sum(entry.file_size for entry in entries)
    if total > size_bytes:
        return f"its entries add up to {total:,} bytes in a file of {size_bytes:,}"
    if (pickle := pickle_name(archive)) not in names:
        return "is a zip archive without data.pkl, so no file of torch.save"
    if not all(
        name.startswith(pickle.removesuffix("data.pkl")) and name == entry.orig_filename
        for name, entry in zip(names, entries, strict=True)
    ):
        return _TWO_READINGS
    return None


def _find_program(names: Iterable[str]) -> str | None:
    for name in names:
        if name.endswith("/archive_format"):
            return "program of torch.export"
        if name.endswith("/constants.pkl") or "/code/" in name:
            return "TorchScript program"
    return None
