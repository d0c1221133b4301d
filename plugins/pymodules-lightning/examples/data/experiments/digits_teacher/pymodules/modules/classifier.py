"""Maps images ``(batch, 1, 8, 8)`` to logits ``(batch, 10)``."""

from torch import nn

settings = {}
module = nn.Sequential(
    nn.Conv2d(1, 24, kernel_size=3, padding=1),
    nn.BatchNorm2d(24),
    nn.ReLU(),
    nn.Conv2d(24, 48, kernel_size=3, padding=1),
    nn.BatchNorm2d(48),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.2),
    nn.Linear(48 * 4 * 4, 10),
)
