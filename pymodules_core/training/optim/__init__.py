"""Optimizers: a block, an update, accumulation, and their state by name."""
