"""Images of the modules in memory that is reused from commit to commit."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pymodules_core.checkpoints.content import Content
from pymodules_core.checkpoints.image import FileImage


class Staging:
    """One image a name; a commit waits only until its changes are copied here."""

    def __init__(self) -> None:
        self._images: dict[str, FileImage] = {}

    def take(
        self, states: Mapping[str, Mapping[str, Any]], wait: Callable[[], object]
    ) -> dict[str, FileImage]:
        """Copy what changed into the images.

        Args:
            states: Name to state dict.
            wait: Called before the first change; returns when nobody reads the images any more.
        """
        taken = {}
        for name, state in states.items():
            content = Content(state)
            image = self._images.get(name)
            if image is None or not image.fits(content):
                wait()
                image = self._images[name] = FileImage(state)
            elif not image.holds(content):
                wait()
                image.fill(content)
            taken[name] = image
        return taken

    def forget(self, names: Iterable[str]) -> None:
        """Give back the memory of images that are not needed again."""
        for name in names:
            self._images.pop(name, None)
