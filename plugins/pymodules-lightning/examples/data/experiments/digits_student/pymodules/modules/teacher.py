"""The trained classifier of `digits_teacher`, frozen."""

from torch import nn

settings = {
    "frozen": True,
    "load_weights_from_exp": {
        "exp_name": "digits_teacher",
        "ckp_pool_name": "best",
        "module_name": "classifier",
    },
}
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
