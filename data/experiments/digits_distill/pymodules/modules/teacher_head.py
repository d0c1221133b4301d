"""The teacher's second half: the trained head of `digits_classifier`, frozen."""

from torch import nn

module = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 10))
settings = {
    "frozen": True,
    "load_weights_from_exp": {
        "exp_name": "digits_classifier",
        "ckp_pool_name": "best",
        "module_name": "head",
    },
}
