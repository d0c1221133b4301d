"""Trains a pool on a task: run order, loops, optimizers, metrics, records."""

from pymodules_core.training.run_output.result import RunResult
from pymodules_core.training.task.run import Run
from pymodules_core.training.trainer import Trainer

__all__ = ["Run", "RunResult", "Trainer"]
