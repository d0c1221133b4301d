"""Memory that images are laid out in, and copies into it from devices."""

import logging
import mmap
import weakref
from collections.abc import Sequence
from typing import Any

import torch

logger = logging.getLogger("pymodules_core")

# For all devices, not only today's.
_PORTABLE = 1


class Pages:
    """Whole pages of memory, as direct I/O writes them.

    Shared with child processes, so that a fork (of data loader workers, say) does not make every
    page be copied once more at the next fill.

    Args:
        size_bytes: How much has to fit.

    Attributes:
        memory: The pages.
    """

    def __init__(self, size_bytes: int) -> None:
        self.memory = mmap.mmap(-1, _whole_pages(size_bytes))
        self._is_pinned = False

    @classmethod
    def reuse(cls, pages: "Pages | None", size_bytes: int) -> "Pages":
        """Return pages that have the room, and leave less than half of it unused; else new ones."""
        needed = _whole_pages(size_bytes)
        if pages is not None and len(pages.memory) // 2 < needed <= len(pages.memory):
            return pages
        return cls(size_bytes)

    def view(self, size_bytes: int) -> memoryview:
        """Return the first bytes, filled up to whole pages."""
        return memoryview(self.memory)[: _whole_pages(size_bytes)]

    def tensor_at(self, offset: int, like: torch.Tensor) -> torch.Tensor:
        """Return the memory at ``offset`` as a dense CPU tensor of another's dtype and shape."""
        if not like.numel():
            return torch.empty(like.shape, dtype=like.dtype)
        flat = torch.frombuffer(self.memory, dtype=like.dtype, offset=offset, count=like.numel())
        return flat.view(like.shape)

    def pin(self) -> None:
        """Let CUDA devices copy into the pages by themselves; does nothing where they can."""
        if self._is_pinned:
            return
        self._is_pinned = True
        address = torch.frombuffer(self.memory, dtype=torch.uint8).data_ptr()
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch's
        code = int(runtime.cudaHostRegister(address, len(self.memory), _PORTABLE))
        if code != 0:
            logger.warning("staging memory cannot be pinned (CUDA error %d): saving waits", code)
            return
        # Before the memory is given back, which the finalizer's reference to it delays.
        weakref.finalize(self, _unpin, address, self.memory)


def start_copies(
    targets: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]
) -> list[torch.cuda.Event]:
    """Copy into pinned memory beside what the devices compute.

    Each device's current stream waits for the copy before it continues, since what it does next may
    change the tensors; the caller does not wait.

    Args:
        targets: CPU tensors in pinned memory.
        tensors: CUDA tensors of the same dtypes and shapes.

    Returns:
        What has to happen before the targets hold the values.
    """
    events = []
    for device in {tensor.device for tensor in tensors}:
        mine = [pair for pair in zip(targets, tensors, strict=True) if pair[1].device == device]
        compute = torch.cuda.current_stream(device)
        beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        beside.wait_stream(compute)
        with torch.cuda.stream(beside):
            for target, tensor in mine:
                target.copy_(tensor, non_blocking=True)
            events.append(beside.record_event())
        compute.wait_stream(beside)
    return events


def _whole_pages(size_bytes: int) -> int:
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _unpin(address: int, memory: mmap.mmap) -> None:
    # The interpreter may be at its end, and the driver gone.
    if len(memory) and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch's
        runtime.cudaHostUnregister(address)
