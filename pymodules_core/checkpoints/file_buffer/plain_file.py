"""A checkpoint file as ``torch.save`` writes it, without knowing how."""

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from pymodules_core.checkpoints.file_buffer.buffer import Finished, plain_torch, save_with_crcs
from pymodules_core.checkpoints.file_buffer.pinned_memory import Pages
from pymodules_core.checkpoints.file_format.digest import Content, identity_of
from pymodules_core.checkpoints.file_format.state_dict import map_tensors
from pymodules_core.checkpoints.store.checksums import checksum_of_bytes


class PlainFile:
    """What ``FileBuffer`` is, written again for each commit: two copies and three passes more.

    Args:
        state: What ``Content`` takes.
        pages: Memory that nobody needs any more; taken where it has the size.
        values: Values of the distinct tensors in their order, in the place of those in ``state``.
    """

    is_likely_stored = True

    def __init__(
        self,
        state: Mapping[str, Any],
        *,
        pages: Pages | None = None,
        values: Iterable[torch.Tensor] | None = None,
    ) -> None:
        tensors = Content(state).tensors
        copies = {
            identity_of(tensor): _dense(value)
            for tensor, value in zip(tensors, tensors if values is None else values, strict=True)
        }
        file = io.BytesIO()
        with plain_torch():
            copied = map_tensors(state, lambda tensor: copies[identity_of(tensor)])
            save_with_crcs(copied, file)
        self.size_bytes = file.tell()
        is_fit = pages is not None and pages.has_room_for(self.size_bytes)
        self.memory = pages if pages is not None and is_fit else Pages(self.size_bytes)
        self.pages = self.memory.view(self.size_bytes)
        self.pages[: self.size_bytes] = file.getbuffer()
        self.finished = Finished(
            Content(copied).digest_now(), checksum_of_bytes(self.pages[: self.size_bytes])
        )

    def finish(self, on_final: Callable[[int], None] = lambda _: None) -> Finished:
        """Return digest and checksum; every byte is final."""
        on_final(len(self.pages))
        return self.finished


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values as a CPU tensor that shares its memory with no other."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.to("cpu", copy=True, memory_format=torch.contiguous_format)
