"""A checkpoint file laid out in memory: tensors are copied into it, and it is written as it is.

``torch.save`` decides every byte but those of the tensors: under ``skip_data`` it leaves holes for
them. The image keeps that frame, so a save is one copy into the holes, one pass for checksums and
digests, and one write. Its pages are reused from save to save: fresh ones cost ten times the copy.
"""

import mmap
import struct
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, cast

import attrs
import torch
from blake3 import blake3
from torch.serialization import skip_data

from pymodules_core.checkpoints.content import Content, identity_of, tensor_bytes
from pymodules_core.checkpoints.fingerprints import fingerprint, memory_of, pieces_in
from pymodules_core.checkpoints.store.archives import Hole, crc32, find_holes, seal_of

# Less is compared faster than threads are started.
_WORTH_THREADS_BYTES = 1 << 25
_CRC = struct.Struct("<I")


@attrs.frozen
class Sealed:
    """What names an image: the digest of its content, and the seal of the file's bytes."""

    digest: str
    seal: str


class FileImage:
    """The file that ``torch.save(state, file)`` would write, in memory of its own.

    Args:
        state: What ``Content`` takes.

    Attributes:
        size_bytes: Length of the file.
        sealed: Its digest and seal; None since the last ``fill``.
        was_written: Some content of it was written to disk.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        content = Content(state)
        self._outline = content.outline
        self._digest_of = content.digest
        frame = _Frame()
        with skip_data():
            torch.save(_hollow(state, {}), cast("IO[bytes]", frame))
        self.size_bytes = frame.size_bytes
        # Whole pages: direct I/O writes nothing less.
        page_count = -(-frame.size_bytes // mmap.PAGESIZE)
        self._pages = mmap.mmap(-1, page_count * mmap.PAGESIZE)
        for offset, piece in frame.pieces:
            self._pages[offset : offset + len(piece)] = piece
        self._holes = find_holes(self._pages)
        by_number = {hole.number: hole for hole in self._holes}
        self._starts = [by_number[number].start for number in range(len(content.tensors))]
        self._targets = [self._target(by_number[n]) for n in range(len(content.tensors))]
        self._fingerprints: dict[int, bytes] = {}
        self.sealed: Sealed | None = None
        self.was_written = False
        self.fill(content)

    @property
    def pages(self) -> memoryview:
        """The bytes of the file, filled up to whole pages."""
        return memoryview(self._pages)

    def fits(self, content: Content) -> bool:
        """Tell whether ``content`` differs from the image in the values of its tensors alone."""
        return self._outline == content.outline

    def holds(self, content: Content) -> bool:
        """Tell whether the image holds exactly these values; ``content`` has to fit."""
        pieces = [
            (start + offset, piece)
            for start, tensor in zip(self._starts, content.tensors, strict=True)
            for offset, piece in pieces_in(memory_of(tensor_bytes(tensor)))
        ]
        if not pieces or not self._holds_piece(pieces[0]):
            return not pieces
        count = torch.get_num_threads() if self.size_bytes >= _WORTH_THREADS_BYTES else 1
        own, *others = [pieces[1 + first :: count] for first in range(count)]
        if not others:
            return self._holds_pieces(own)
        with ThreadPoolExecutor(len(others)) as threads:
            rest = threads.map(self._holds_pieces, others)
            return self._holds_pieces(own) and all(rest)

    def fill(self, content: Content) -> None:
        """Copy the tensors of ``content``, which has to fit, into the image."""
        self.sealed = None
        self._fingerprints.clear()
        if not self._targets:  # torch refuses to copy nothing
            return
        with torch.no_grad():
            torch._foreach_copy_(
                self._targets, [tensor_bytes(tensor) for tensor in content.tensors]
            )

    def seal(self, on_final: Callable[[int], None] = lambda _: None) -> Sealed:
        """Put the checksums in place and give digest and seal.

        Args:
            on_final: Called with an offset below which every byte of the file is final.
        """
        if self.sealed is None:
            pages = self.pages
            digests = {hole.number: self._seal_hole(hole, pages, on_final) for hole in self._holes}
            content = pages[: self.size_bytes]
            seal = seal_of(content, self._holes, [digests[hole.number] for hole in self._holes])
            digest = self._digest_of([digests[number] for number in range(len(digests))])
            self.sealed = Sealed(digest, seal)
        on_final(len(self._pages))
        return self.sealed

    def _seal_hole(self, hole: Hole, pages: memoryview, on_final: Callable[[int], None]) -> bytes:
        hasher = blake3()
        crc = 0
        for offset, piece in pieces_in(pages[hole.start : hole.stop]):
            # While it is in the processor's cache.
            hasher.update(piece)
            crc = crc32(piece, crc)
            self._fingerprints[hole.start + offset] = fingerprint(piece)
            on_final(hole.start + offset + len(piece))
        for place in hole.crc_places:
            _CRC.pack_into(self._pages, place, crc)
        return hasher.digest()

    def _holds_pieces(self, places: Iterable[tuple[int, memoryview]]) -> bool:
        return all(map(self._holds_piece, places))

    def _holds_piece(self, place: tuple[int, memoryview]) -> bool:
        start, piece = place
        known = self._fingerprints.get(start)
        if known is None:  # not sealed yet
            known = fingerprint(self.pages[start : start + len(piece)])
            self._fingerprints[start] = known
        return fingerprint(piece) == known

    def _target(self, hole: Hole) -> torch.Tensor:
        count = hole.stop - hole.start
        if not count:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(self._pages, dtype=torch.uint8, offset=hole.start, count=count)


class _Frame:
    """A file to write to that keeps what is written and only counts what is skipped."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self.size_bytes = 0
        self._position = 0

    def write(self, content: bytes) -> int:
        self.pieces.append((self._position, bytes(content)))
        self.seek(len(content), 1)
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self.size_bytes)[whence]
        self.size_bytes = max(self.size_bytes, self._position)
        return self._position

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        pass


def _hollow(value: Any, made: dict[object, torch.Tensor]) -> Any:
    """Replace each tensor by an empty one of its dtype and shape; ties stay ties."""
    if isinstance(value, torch.Tensor):
        return made.setdefault(identity_of(value), torch.empty(value.shape, dtype=value.dtype))
    if isinstance(value, Mapping):
        result: Any = type(value)()
        for key, item in value.items():
            result[key] = _hollow(item, made)
        if hasattr(value, "_metadata"):
            result._metadata = value._metadata
        return result
    if isinstance(value, list | tuple):
        return type(value)(_hollow(item, made) for item in value)
    return value
