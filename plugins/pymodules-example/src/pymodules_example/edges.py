"""Edge strength of images by two small kernels."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# How much the row of a pixel and the rows beside it count.
_ROWS = {
    "sobel": (1.0, 2.0, 1.0),  # I. Sobel and G. Feldman, 1968
    "scharr": (3.0, 10.0, 3.0),  # H. Scharr, "Optimale Operatoren", 2000
}


class EdgeStrength(nn.Module):
    """Gives the edge strength of each channel of an image.

    It has no parameters; its two kernels are buffers, so they follow the module's device and dtype.

    Args:
        operator: ``sobel`` or ``scharr``.
    """

    kernels: Tensor

    def __init__(self, operator: Literal["sobel", "scharr"] = "sobel") -> None:
        super().__init__()
        rows = torch.tensor(_ROWS[operator])
        across = rows.outer(torch.tensor([-1.0, 0.0, 1.0])) / (2 * rows.sum())
        self.register_buffer("kernels", torch.stack([across, across.T]).unsqueeze(1))

    def forward(self, images: Tensor) -> Tensor:
        """Compute edge strength.

        Args:
            images: ``(batch, channels, height, width)`` float.

        Returns:
            Same shape and dtype; 0 where the image is flat. Borders are zero-padded.
        """
        batch, channels, height, width = images.shape
        flat = images.reshape(batch * channels, 1, height, width)
        gradients = functional.conv2d(flat, self.kernels, padding=1)
        # The square root has no gradient at 0; the small number keeps flat images trainable.
        strength = (gradients.square().sum(dim=1) + 1e-12).sqrt()
        return strength.reshape(batch, channels, height, width)
