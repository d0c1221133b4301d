"""Trains a pool on a task: run order, loops, optimizers, metrics, records."""

from pymodules_core.training.result import RunResult
from pymodules_core.training.run import Run
from pymodules_core.training.trainer import Trainer

__all__ = ["Run", "RunResult", "Trainer"]
