"""What counts as an image that a task logs."""

from typing import Any

import torch

from pymodules_core.errors import TaskError
from pymodules_core.settings.structure import show

_CHANNELS = (1, 3, 4)


def check_image(name: Any, image: Any) -> None:
    """Refuse what no logger could show.

    Raises:
        TaskError: ``name`` is no string, or ``image`` no image.
    """
    if not isinstance(name, str):
        raise TaskError(
            f"an image is called {name!r}, expected str", found=name, fix=f"call it {str(name)!r}"
        )
    if not isinstance(image, torch.Tensor):
        raise TaskError(
            f"image {name!r} is {show(image)}, expected a tensor",
            key=name,
            found=image,
            fix="torch.as_tensor(image)",
        )
    shape = list(image.shape)
    if image.ndim not in {3, 4} or image.shape[-3] not in _CHANNELS:
        raise TaskError(
            f"image {name!r} has shape {shape}, expected (channels, height, width) or (images, "
            "channels, height, width) with 1, 3 or 4 channels",
            key=name,
            found=shape,
            fix="image.unsqueeze(-3) adds the channel of grey images"
            if image.ndim in {2, 3}
            else "image.reshape(-1, channels, height, width)",
        )
    if not (image.is_floating_point() or image.dtype == torch.uint8):
        raise TaskError(
            f"image {name!r} has dtype {image.dtype}, expected float from 0 to 1, or uint8",
            key=name,
            found=image.dtype,
            fix="image.float(), scaled to 0 to 1",
        )
