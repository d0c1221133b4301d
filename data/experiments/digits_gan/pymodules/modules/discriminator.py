"""Judges digits: takes images and the digits they claim to be, tells real ones from drawn ones."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot


class Discriminator(nn.Module):
    """A network of two hidden layers.

    Args:
        dropout: Share of the hidden units left out, against learning the few images by heart.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64 + 10, 256),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(256, 256),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(256, 1),
            nn.Flatten(0),
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Judge each image together with the digit it claims to be.

        Args:
            images: ``(batch, 1, 8, 8)`` float in 0..1.
            labels: ``(batch,)`` int64 in 0..9.

        Returns:
            ``(batch,)`` float logits; positive means real.
        """
        digits = one_hot(labels, num_classes=10)
        return self.layers(torch.cat([images.flatten(1), digits], dim=1))


def build(dropout: float = 0.2) -> nn.Module:
    """Build the discriminator; `[modules.args.discriminator]` sets its dropout."""
    return Discriminator(dropout)
