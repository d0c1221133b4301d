"""Compiles modules in place, where their settings ask for it."""

import attrs

from pymodules_core.discovery.static_reader import find_settings_line
from pymodules_core.errors import SettingsError
from pymodules_core.module_pool.pool import ModulePool, PoolEntry
from pymodules_core.settings import CompileSettings
from pymodules_core.specs import FileOrigin


def compile_modules(pool: ModulePool) -> None:
    """Let ``torch.compile`` compile the ``forward`` of modules whose settings say so.

    In place: the module stays what it is, and its keys in checkpoints have no prefix. Compilation
    itself happens at the first call.

    Raises:
        SettingsError: torch refuses the settings.
    """
    for name, entry in pool.entries.items():
        wanted = entry.settings.compile
        if wanted is False:
            continue
        options = CompileSettings() if wanted is True else wanted
        try:
            entry.module.compile(**attrs.asdict(options))
        except (RuntimeError, ValueError, TypeError) as error:
            raise _located(
                pool,
                entry,
                SettingsError(
                    f"module {name!r} cannot be compiled: {error}",
                    key=f"modules.settings.{name}.compile",
                    found=attrs.asdict(options),
                    fix='"compile": True takes what torch takes by default',
                ),
            ) from error


def _located(pool: ModulePool, entry: PoolEntry, error: SettingsError) -> SettingsError:
    """Say where the setting was written: ``experiment.toml`` wins over the module file."""
    experiment = pool.experiment
    if experiment and "compile" in experiment.settings.modules.settings.get(entry.name, {}):
        return experiment.locate(error)
    if isinstance(entry.origin, FileOrigin):
        error.file = entry.origin.file
        error.line = find_settings_line(entry.origin.file, ("compile",))
    return error
