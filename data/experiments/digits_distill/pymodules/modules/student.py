"""The network that is trained, far smaller than its teacher.

Maps images ``(batch, 1, 8, 8)`` to logits ``(batch, 10)``.
"""

from torch import nn

module = nn.Sequential(
    nn.Flatten(),
    nn.Linear(64, 32),
    nn.ReLU(),
    nn.Linear(32, 10),
)
settings = {"frozen": False}
