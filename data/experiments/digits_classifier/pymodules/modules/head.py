"""Turns features into one logit per digit. Written as a ready `module` with its `settings`."""

from torch import nn

module = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 10))
settings = {"frozen": False}
