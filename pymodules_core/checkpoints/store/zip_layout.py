"""The container of a checkpoint file: where its tensors and their checksums lie."""

import io
import struct
import zipfile
from operator import attrgetter
from typing import IO, Any

import attrs

try:  # Six times as fast where there is a wheel of it.
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["MemoryFile", "TensorRange", "crc32", "find_tensor_ranges"]

_DESCRIPTOR_CRC_OFFSET = 4
_LOCAL_HEADER_BYTES = 30
_LOCAL_LENGTHS_OFFSET = 26
_LOCAL_LENGTHS = struct.Struct("<HH")
_CENTRAL_HEADER_BYTES = 46
_CENTRAL_CRC_OFFSET = 16
_CENTRAL_LENGTHS_OFFSET = 28
_CENTRAL_LENGTHS = struct.Struct("<HHH")
_ARCHIVE_START = b"PK\x03\x04"
_PICKLE_NAME = "archive/data.pkl"
_DATA_PREFIX = "archive/data/"


@attrs.frozen
class TensorRange:
    """Where the bytes of one tensor lie.

    Attributes:
        number: The tensor's, in the order in which ``torch.save`` met them.
        start: First byte in the file.
        stop: The byte after the last.
        crc_places: Offsets of the two places that hold the CRC of these bytes.
    """

    number: int
    start: int
    stop: int
    crc_places: tuple[int, int]


class MemoryFile(io.RawIOBase):
    """Memory as a file to read, without a copy of it.

    Args:
        content: The memory.
    """

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; the whole is given by ``whence`` as for any file."""
        start = (0, self._position, len(self._content))[whence]
        if start + offset < 0:
            raise ValueError(f"negative position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read as much as there is, up to the length of ``buffer``."""
        chunk = self._content[self._position : self._position + len(buffer)]
        memoryview(buffer)[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)


def is_archive(start: bytes) -> bool:
    """Return by its first bytes whether ``torch.save`` may have written a file."""
    return start.startswith(_ARCHIVE_START)


def find_tensor_ranges(file: IO[bytes]) -> list[TensorRange]:
    """Return the tensors of a file that ``torch.save`` laid out, in the order of the file.

    Raises:
        ValueError: It is not in the layout that is known here.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries, central = archive.infolist(), archive.start_dir
            archive.getinfo(_PICKLE_NAME)
        ranges = []
        for entry in entries:
            file.seek(entry.header_offset + _LOCAL_LENGTHS_OFFSET)
            lengths = _LOCAL_LENGTHS.unpack(file.read(_LOCAL_LENGTHS.size))
            start = entry.header_offset + _LOCAL_HEADER_BYTES + sum(lengths)
            stop = start + entry.compress_size
            if entry.filename.startswith(_DATA_PREFIX):
                places = stop + _DESCRIPTOR_CRC_OFFSET, central + _CENTRAL_CRC_OFFSET
                number = int(entry.filename.removeprefix(_DATA_PREFIX))
                ranges.append(TensorRange(number, start, stop, places))
            file.seek(central + _CENTRAL_LENGTHS_OFFSET)
            lengths = _CENTRAL_LENGTHS.unpack(file.read(_CENTRAL_LENGTHS.size))
            central += _CENTRAL_HEADER_BYTES + sum(lengths)
    # One flipped bit makes zipfile raise anything.
    except Exception as error:
        raise ValueError(f"its table of contents cannot be read: {error}") from error
    return sorted(ranges, key=attrgetter("start"))
