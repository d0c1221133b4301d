"""Turns images of digits into feature vectors. Written as `build`, so the toml sets its width."""

from modules._blocks import conv_block
from torch import nn


def build(width: int = 16) -> nn.Module:
    """Build the encoder.

    Args:
        width: Channels of the first convolution; the later ones have twice as many.

    Returns:
        A module from images ``(batch, 1, 8, 8)`` to features ``(batch, 64)``.
    """
    return nn.Sequential(
        conv_block(1, width),
        conv_block(width, 2 * width),
        nn.MaxPool2d(2),
        conv_block(2 * width, 2 * width),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 2 * 2, 64),
        nn.ReLU(),
    )
