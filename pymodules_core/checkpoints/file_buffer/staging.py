"""Files of the modules in memory that is reused from commit to commit."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from pymodules_core.checkpoints.file_buffer.buffer import FileBuffer
from pymodules_core.checkpoints.file_buffer.making import CheckpointFile, is_layout_known, make_file
from pymodules_core.checkpoints.file_format.digest import Content

# Less is compared faster than other threads are woken.
_WORTH_THREADS_BYTES = 1 << 24

# The name of a buffer, and what ``places`` gave of a content for it.
_Place = tuple[str, int, memoryview]


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
        if sum(len(piece) for _, _, piece in places) >= _WORTH_THREADS_BYTES:
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
                places += ((name, start, piece) for start, piece in own)
            else:
                changed.add(name)
        return places

    def _compare(self, places: deque[_Place], changed: set[str]) -> None:
        """Add the names of places that differ to ``changed``, until no place is left."""
        while True:
            try:
                name, start, piece = places.popleft()
            except IndexError:
                return
            if name not in changed and not self._buffers[name].holds(start, piece):
                changed.add(name)
