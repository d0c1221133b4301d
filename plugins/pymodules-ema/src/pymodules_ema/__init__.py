"""Exponential moving averages of modules, as modules of the pool."""
