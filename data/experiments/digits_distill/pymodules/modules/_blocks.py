"""Building blocks of the teacher, the same as in `digits_classifier`."""

from torch import nn


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build a 3x3 convolution that keeps height and width, with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
