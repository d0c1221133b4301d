"""Draws digits: takes noise and the digits that are wanted, gives images."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot


class Generator(nn.Module):
    """A network of two hidden layers; 8x8 pixels are too few for convolutions to pay off."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(32 + 10, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 64),
            nn.Sigmoid(),
            nn.Unflatten(1, (1, 8, 8)),
        )

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Draw one image for each row of noise.

        Args:
            noise: ``(batch, 32)`` float, normally distributed.
            labels: ``(batch,)`` int64 in 0..9, the digits to draw.

        Returns:
            ``(batch, 1, 8, 8)`` float in 0..1.
        """
        digits = one_hot(labels, num_classes=10)
        return self.layers(torch.cat([noise, digits], dim=1))


module = Generator()
settings = {"frozen": False}
