"""A checkpoint file laid out in memory: tensors are copied into it, and it is written as it is.

``torch.save`` decides every byte but those of the tensors: under ``skip_data`` it leaves holes for
them. The buffer keeps that frame, so a save is one copy into the holes, one pass for checksums and
digests, and one write. Its pages are reused from save to save: fresh ones cost ten times the copy.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, cast

import torch
from blake3 import blake3
from torch.serialization import skip_data
from torch.utils.serialization import config

from pymodules_core.checkpoints.file_buffer.pinned_memory import Pages, start_copies
from pymodules_core.checkpoints.file_format.digest import Content, digest_of, identity_of, memory_of
from pymodules_core.checkpoints.file_format.state_dict import map_tensors
from pymodules_core.checkpoints.store.checksums import (
    checksum_of_parts,
    chunks_in,
    fingerprint,
    gaps_between,
)
from pymodules_core.checkpoints.store.objects import Finished
from pymodules_core.checkpoints.store.zip_layout import (
    MemoryFile,
    TensorRange,
    crc32,
    find_tensor_ranges,
)

_CRC = struct.Struct("<I")


class FileBuffer:
    """The file that ``torch.save(state, file)`` would write, in memory of its own.

    Args:
        state: What ``Content`` takes.
        pages: Memory that nobody needs any more; taken where it has the size.
        values: Values of the distinct tensors in their order, in the place of those in ``state``.

    Attributes:
        memory: What it is laid out in.
        pages: The bytes of the file, filled up to whole pages.
        size_bytes: Length of the file.
        finished: Its digest and checksum; None since the last ``fill``.
        is_likely_stored: Whether it is worth to look for an object of this content before one is
            written: on a new buffer, since most runs start from what is there, and on one that was
            filled from a device, where nothing was compared.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        *,
        pages: Pages | None = None,
        values: Iterable[torch.Tensor] | None = None,
    ) -> None:
        content = Content(state)
        with plain_torch():
            self._lay_out(state, content, pages)
        if values is None:
            self.fill(content)
        else:
            with torch.no_grad():
                for target, value in zip(self._targets, values, strict=True):
                    target.copy_(value)
        self.is_likely_stored = True

    def _lay_out(self, state: Mapping[str, Any], content: Content, pages: Pages | None) -> None:
        self._outline, self._order = content.outline, content.order
        frame = _Frame()
        with skip_data():
            save_with_crcs(_hollow(state), cast("IO[bytes]", frame))
        self.size_bytes = frame.size_bytes
        self.memory = Pages.reuse(pages, frame.size_bytes)
        self.pages = self.memory.view(frame.size_bytes)
        for offset, chunk in frame.chunks:
            self.pages[offset : offset + len(chunk)] = chunk
        self._ranges = find_tensor_ranges(
            cast("IO[bytes]", MemoryFile(self.pages[: self.size_bytes]))
        )
        by_number = {span.number: span for span in self._ranges}
        self._starts = [by_number[number].start for number in range(len(content.tensors))]
        self._targets = [
            self.memory.tensor_at(start, tensor)
            for start, tensor in zip(self._starts, content.tensors, strict=True)
        ]
        self._fingerprints: dict[int, bytes] = {}
        self._landing: list[torch.cuda.Event] = []
        self.finished: Finished | None = None

    def fits(self, content: Content) -> bool:
        """Return whether ``content`` differs from the buffer in the values of its tensors alone."""
        return self._outline == content.outline and self._order == content.order

    def places(self, content: Content) -> Iterator[tuple[int, memoryview]]:
        """Return the memory of ``content``, which has to fit and be on the CPU, chunk by chunk.

        Returns:
            Where the buffer has it, and the chunk.
        """
        for start, tensor in zip(self._starts, content.tensors, strict=True):
            for offset, chunk in chunks_in(memory_of(tensor)):
                yield start + offset, chunk

    def holds(self, start: int, chunk: memoryview) -> bool:
        """Return whether a chunk that ``places`` gave is what the buffer has there."""
        known = self._fingerprints.get(start)
        if known is None:  # not finished yet
            known = fingerprint(self.pages[start : start + len(chunk)])
            self._fingerprints[start] = known
        return fingerprint(chunk) == known

    def fill(self, content: Content) -> None:
        """Copy the tensors of ``content``, which has to fit, into the buffer.

        Tensors on CUDA devices may land later; ``finish`` waits for them.
        """
        self.finished = None
        self._fingerprints.clear()
        self.is_likely_stored = not content.is_on_cpu
        pairs = list(zip(self._targets, content.tensors, strict=True))
        on_cuda = [pair for pair in pairs if pair[1].is_cuda]
        others = [pair for pair in pairs if not pair[1].is_cuda]
        with plain_torch():
            if on_cuda:
                self.memory.pin()
                self._landing = start_copies(*zip(*on_cuda, strict=True))
            if others:  # torch refuses to copy nothing
                torch._foreach_copy_([pair[0] for pair in others], [pair[1] for pair in others])

    def finish(self, on_final: Callable[[int], None] = lambda _: None) -> Finished:
        """Put the checksums in place and give digest and checksum.

        Args:
            on_final: Called with an offset below which every byte of the file is final.
        """
        while self._landing:
            self._landing.pop().synchronize()
        if self.finished is None:
            digests = {span.number: self._hash_range(span, on_final) for span in self._ranges}
            gaps = gaps_between(self._ranges, self.size_bytes)
            checksum = checksum_of_parts(
                (self.pages[slice(*gap)] for gap in gaps), self._fingerprints
            )
            digest = digest_of(self._outline, [digests[number] for number in self._order])
            self.finished = Finished(digest, checksum)
        on_final(len(self.pages))
        return self.finished

    def _hash_range(self, span: TensorRange, on_final: Callable[[int], None]) -> bytes:
        hasher = blake3()
        crc = 0
        for offset, chunk in chunks_in(self.pages[span.start : span.stop]):
            # While it is in the processor's cache.
            hasher.update(chunk)
            crc = crc32(chunk, crc)
            self._fingerprints[span.start + offset] = fingerprint(chunk)
            on_final(span.start + offset + len(chunk))
        for place in span.crc_places:
            _CRC.pack_into(self.pages, place, crc)
        return hasher.digest()


@contextmanager
def plain_torch() -> Iterator[None]:
    """Leave inference mode, gradients and a default device, whatever the caller is in."""
    with torch.inference_mode(mode=False), torch.no_grad(), torch.device("cpu"):
        yield


def save_with_crcs(state: Any, file: IO[bytes]) -> None:
    """Have ``torch.save`` write a file whose checksums are right, whatever the caller set."""
    settings: Any = config  # whose methods its stubs lack
    with settings.patch({"save.compute_crc32": True}):
        torch.save(state, file)


class _Frame:
    """A file to write to that keeps what is written and only counts what is skipped."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, bytes]] = []
        self.size_bytes = 0
        self._position = 0

    def write(self, content: bytes) -> int:
        self.chunks.append((self._position, bytes(content)))
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


def _hollow(state: Mapping[str, Any]) -> Any:
    """Replace each tensor by an empty one of its dtype and shape; ties stay ties."""
    made: dict[object, torch.Tensor] = {}

    def replace(tensor: torch.Tensor) -> torch.Tensor:
        return made.setdefault(identity_of(tensor), torch.empty(tensor.shape, dtype=tensor.dtype))

    return map_tensors(state, replace)
