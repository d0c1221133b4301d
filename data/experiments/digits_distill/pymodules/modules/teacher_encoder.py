"""The teacher's first half: the trained encoder of `digits_classifier`, frozen."""

from modules._blocks import conv_block
from torch import nn

settings = {
    "frozen": True,
    "load_weights_from_exp": {
        "exp_name": "digits_classifier",
        "ckp_pool_name": "best",
        "module_name": "encoder",
    },
}


def build(width: int = 24) -> nn.Module:
    """Build the same encoder as in `digits_classifier`, so that its weights fit."""
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
