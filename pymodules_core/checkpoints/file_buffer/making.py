"""Makes checkpoint files: by the buffer, kept from commit to commit, or by ``torch.save`` alone."""

import io
import logging
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import torch

from pymodules_core.checkpoints.file_buffer.buffer import FileBuffer, plain_torch, save_with_crcs
from pymodules_core.checkpoints.file_buffer.pinned_memory import Pages
from pymodules_core.checkpoints.file_format.digest import Content, identity_of
from pymodules_core.checkpoints.file_format.read import read_own_file
from pymodules_core.checkpoints.file_format.state_dict import map_tensors
from pymodules_core.checkpoints.store.checksums import checksum_of_bytes
from pymodules_core.checkpoints.store.objects import Finished
from pymodules_core.errors import CheckpointError, CheckpointFileError
from pymodules_core.names import CHECKPOINT_SUFFIX

logger = logging.getLogger("pymodules_core")

# Less is compared faster than other threads are woken.
_WORTH_THREADS_BYTES = 1 << 24

# The name of a buffer, and what ``places`` gave of a content for it.
_Place = tuple[str, int, memoryview]


class PlainFile:
    """What ``FileBuffer`` is, as ``torch.save`` writes it, without knowing how.

    Written again for each commit: two copies and three passes more.

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
        self.memory = Pages.reuse(pages, self.size_bytes)
        self.pages = self.memory.view(self.size_bytes)
        self.pages[: self.size_bytes] = file.getbuffer()
        self.finished = Finished(
            Content(copied).digest_now(), checksum_of_bytes(self.pages[: self.size_bytes])
        )

    def finish(self, on_final: Callable[[int], None] = lambda _: None) -> Finished:
        """Return digest and checksum; every byte is final."""
        on_final(len(self.pages))
        return self.finished


CheckpointFile: TypeAlias = FileBuffer | PlainFile


def make_file(
    state: Mapping[str, Any],
    *,
    memory: Pages | None = None,
    values: Iterable[torch.Tensor] | None = None,
) -> CheckpointFile:
    """Make the bytes of the file that holds a state dict.

    Args:
        state: What ``Content`` takes.
        memory: Memory that nobody needs any more; taken where it has the size.
        values: Values of the distinct tensors in their order, in the place of those in ``state``.
    """
    kind = FileBuffer if is_layout_known() else PlainFile
    return kind(state, pages=memory, values=values)


class Staging:
    """One buffer a name; a commit waits only until its changes are copied here."""

    def __init__(self) -> None:
        self._buffers: dict[str, FileBuffer] = {}
        self._threads: ThreadPoolExecutor | None = None

    def take(
        self, states: Mapping[str, Mapping[str, Any]], wait: Callable[[], object]
    ) -> dict[str, CheckpointFile]:
        """Copy what changed into the buffers.

        Args:
            states: Name to state dict.
            wait: Called before the first change; returns when nobody reads the buffers any more.
        """
        if not is_layout_known():
            wait()
            return {name: make_file(state) for name, state in states.items()}
        contents = {name: Content(state) for name, state in states.items()}
        new = {name for name in contents if not self._has_room_for(name, contents[name])}
        changed = self._find_changed({n: contents[n] for n in contents if n not in new})
        if new or changed:
            wait()
        for name in new:
            # What holds the step, say, is laid out again each time, in the memory it had.
            before = self._buffers.pop(name, None)
            self._buffers[name] = FileBuffer(states[name], pages=before.memory if before else None)
        for name in changed:
            self._buffers[name].fill(contents[name])
        return {name: self._buffers[name] for name in states}

    def forget(self, names: Iterable[str]) -> None:
        """Free the memory of buffers that are not needed again."""
        for name in names:
            self._buffers.pop(name, None)

    def close(self) -> None:
        """Stop the threads that compare; safe to call twice."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

    def _has_room_for(self, name: str, content: Content) -> bool:
        buffer = self._buffers.get(name)
        return buffer is not None and buffer.fits(content)

    def _find_changed(self, contents: Mapping[str, Content]) -> set[str]:
        """Return the names whose buffers hold other values."""
        changed = {name for name, content in contents.items() if not content.is_on_cpu}
        places = self._places(contents, changed)
        others: list[Future[None]] = []
        if sum(len(chunk) for _, _, chunk in places) >= _WORTH_THREADS_BYTES:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(torch.get_num_threads(), "pymodules-compare")
            others = [
                self._threads.submit(self._compare, places, changed)
                for _ in range(torch.get_num_threads() - 1)
            ]
        self._compare(places, changed)
        # One that has not begun has nothing to do any more.
        for other in (other for other in others if not other.cancel()):
            other.result()
        return changed

    def _places(self, contents: Mapping[str, Content], changed: set[str]) -> deque[_Place]:
        """Return what is left to compare where the first chunk of a module is unchanged."""
        # One queue for all: other threads may wait for cores on which torch's still spin.
        places = deque[_Place]()
        for name in [name for name in contents if name not in changed]:
            own = self._buffers[name].places(contents[name])
            first = next(own, None)
            if first is None or self._buffers[name].holds(*first):
                places += ((name, start, chunk) for start, chunk in own)
            else:
                changed.add(name)
        return places

    def _compare(self, places: deque[_Place], changed: set[str]) -> None:
        """Add the names of places that differ to ``changed``, until no place is left."""
        while True:
            try:
                name, start, chunk = places.popleft()
            except IndexError:
                return
            if name not in changed and not self._buffers[name].holds(start, chunk):
                changed.add(name)


@cache
def is_layout_known() -> bool:
    """Return whether this torch writes files in the layout that ``FileBuffer`` fills.

    Checked once a process, on a small state: what the buffer made has to be an archive with right
    checksums that ``torch.load`` reads the same values from.

    Raises:
        CheckpointError: What torch writes by itself could not be read here either.
    """
    with plain_torch():
        state = {"weight": torch.arange(6.0).view(2, 3), "mask": torch.tensor([True, False])}
        try:
            if _holds(FileBuffer(state), state):
                return True
        except Exception as error:
            logger.debug("the file buffer cannot be used", exc_info=error)
        _refuse_unreadable(PlainFile(state))
    logger.warning(
        "torch %s writes checkpoint files in a layout that pymodules does not know: commits are "
        "slower, files and digests are the same. Fix: pip install -U pymodules-core",
        torch.__version__,
    )
    return False


def _holds(buffer: FileBuffer, state: Mapping[str, torch.Tensor]) -> bool:
    buffer.finish()
    file = io.BytesIO(buffer.pages[: buffer.size_bytes])
    with zipfile.ZipFile(file) as archive:
        is_whole = archive.testzip() is None
    file.seek(0)
    found = torch.load(file, weights_only=True)
    return is_whole and all(torch.equal(found[key], state[key]) for key in state)


def _refuse_unreadable(made: PlainFile) -> None:
    """Refuse to save what a resume would refuse to read, while nothing is lost yet."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"state{CHECKPOINT_SUFFIX}")
        file.write_bytes(made.pages[: made.size_bytes])
        try:
            read_own_file(file, is_mapped=False)
        except CheckpointFileError as error:
            raise CheckpointError(
                f"torch {torch.__version__} writes files that a resume would refuse: "
                f"one {error.what}",
                found=str(torch.__version__),
                fix="pip install -U pymodules-core, or an earlier torch",
            ) from error


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values as a CPU tensor that shares its memory with no other."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.to("cpu", copy=True, memory_format=torch.contiguous_format)
