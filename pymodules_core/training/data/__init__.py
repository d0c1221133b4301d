"""Data of a run: batches in an order and with random numbers that seed and epoch decide."""

from pymodules_core.training.data.batches import Batches, Phase
from pymodules_core.training.data.sampling import EpochSampler

__all__ = ["Batches", "EpochSampler", "Phase"]
