"""Turns what tasks log as images into pictures."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def as_picture(image: Tensor) -> Tensor:
    """Make one picture of an image or a batch of images.

    Args:
        image: ``(channels, height, width)``, or ``(images, channels, height, width)``, of 1, 3 or 4
            channels: float from 0 to 1, or uint8.

    Returns:
        ``(channels, height, width)`` uint8 on the CPU; a batch as a grid, row by row, with a black
        line of one pixel between images. NaN is black, and what lies outside 0 to 1 is clipped.
    """
    if image.dtype != torch.uint8:
        # Before it leaves the device: a quarter of the bytes.
        image = image.float().nan_to_num(nan=0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    image = image.cpu()
    return image if image.ndim == 3 else _grid(image)


def _grid(images: Tensor) -> Tensor:
    count, channels = images.shape[:2]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    # The line is right of and below each image; the last ones are cut off again.
    framed = pad(images, (0, 1, 0, 1))
    height, width = framed.shape[2:]
    framed = pad(framed, (0, 0, 0, 0, 0, 0, 0, rows * columns - count))
    grid = framed.reshape(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return grid.reshape(channels, rows * height, columns * width)[:, :-1, :-1]
