"""Trains a pool on a task: run order, loops, optimizers, metrics, records."""

from pymodules_core.moved import moved_names

__getattr__ = moved_names(__name__)
