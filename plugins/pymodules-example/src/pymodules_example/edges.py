"""Edge strength by the Sobel operator (I. Sobel and G. Feldman, 1968)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class SobelEdges(nn.Module):
    """Gives the edge strength of each channel of an image.

    It has no parameters; its two kernels are buffers, so they follow the module's device and dtype.
    """

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
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
