"""The named modules of one run: chosen, built and held together."""

from pymodules_core.module_pool.compiling import compile_modules
from pymodules_core.module_pool.migration import Migration, Migrator
from pymodules_core.module_pool.pool import ModulePool, PoolEntry
from pymodules_core.rng import (
    derive_seed,
    mix_seed,
    random_stream,
    seed_everything,
)

__all__ = [
    "Migration",
    "Migrator",
    "ModulePool",
    "PoolEntry",
    "compile_modules",
    "derive_seed",
    "mix_seed",
    "random_stream",
    "seed_everything",
]
