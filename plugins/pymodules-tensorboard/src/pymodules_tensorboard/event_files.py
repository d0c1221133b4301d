"""Event files on disk, and how they are cut back to a moment of the run.

A file is a sequence of records: length (8 bytes), its checksum (4), a serialised ``Event``, and the
checksum of that (4), as ``tensorboard.summary.writer.record_writer`` writes them.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

_PATTERN = "events.out.tfevents.*"
_HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4


def event_files(folder: Path) -> list[Path]:
    """Return the event files of a log, oldest first."""
    return sorted(folder.glob(_PATTERN))


def cut_back(
    folder: Path,
    lengths: Mapping[str, int] | None,
    *,
    step: int,
    is_kept: Callable[[Event], bool],
) -> list[Event]:
    """Take back what was logged after a checkpoint, half a record of a crash included.

    Args:
        folder: The folder of the log.
        lengths: File name to bytes at the checkpoint; a file that is not named is deleted. None
            where that is not known: each file is then cut at its first event of a later step.
        step: The step of the checkpoint.
        is_kept: Tells which events are to stay although they were logged after the checkpoint.

    Returns:
        Those events, as far as they are not of a later step; they are to be written again.
    """
    kept = []
    for file in event_files(folder):
        length = _length_until(file, step) if lengths is None else lengths.get(file.name, 0)
        if length > file.stat().st_size:
            # The disk lost what the file system had taken: nothing but the rest is there to keep.
            length = max((end for end, _ in _read(file)), default=0)
        kept += [event for _, event in _read(file, length) if event.step <= step and is_kept(event)]
        if length:
            os.truncate(file, length)
        else:
            file.unlink()
    return kept


def _length_until(file: Path, step: int) -> int:
    length = 0
    for end, event in _read(file):
        if event.step > step:
            break
        length = end
    return length


def _read(file: Path, start: int = 0) -> Iterator[tuple[int, Event]]:
    """Return the whole records from ``start`` on, each with the offset of its end."""
    with file.open("rb") as stream:
        stream.seek(start)
        while len(header := stream.read(_HEADER.size)) == _HEADER.size:
            size, checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != checksum:
                return
            data = stream.read(size + _FOOTER_BYTES)
            if len(data) < size + _FOOTER_BYTES:
                return
            yield stream.tell(), Event.FromString(data[:size])
