"""Trains a pool on a task: run order, loops, optimizers, metrics, records."""

from typing import TYPE_CHECKING

from pymodules_core.moved import moved_names

if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = moved_names(__name__)
