"""The named modules of one run: chosen, built and held together."""

from pymodules_core.module_pool.compiling import compile_modules
from pymodules_core.module_pool.migration import Migration, Migrator
from pymodules_core.module_pool.pool import ModulePool, PoolEntry

__all__ = ["Migration", "Migrator", "ModulePool", "PoolEntry", "compile_modules"]
