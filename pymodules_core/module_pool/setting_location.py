"""Where a module's setting was written."""

from pymodules_core.discovery.scan.static_reader import find_settings_line
from pymodules_core.errors import SettingsError
from pymodules_core.module_pool.pool import ModulePool
from pymodules_core.specs import FileOrigin


def locate_setting(pool: ModulePool, name: str, key: str, error: SettingsError) -> SettingsError:
    """Put file and line of a setting into an error: ``experiment.toml`` wins over the module file.

    Args:
        pool: The pool.
        name: The module.
        key: The setting, a key of its table.
        error: What is wrong with it.
    """
    experiment, origin = pool.experiment, pool.entries[name].origin
    if experiment and key in experiment.settings.modules.settings.get(name, {}):
        return experiment.locate(error)
    if isinstance(origin, FileOrigin):
        error.file, error.line = origin.file, find_settings_line(origin.file, (key,))
    return error
