"""Building blocks of the encoder. The leading underscore says: a helper, not a module."""

from torch import nn


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build a 3x3 convolution that keeps height and width, with batch norm and ReLU."""
    return nn.Sequential(
        # Batch norm has its own bias, so one in the convolution would do nothing.
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
