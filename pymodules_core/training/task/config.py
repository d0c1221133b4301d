"""Makes what a task's functions get as ``config``."""

from pathlib import Path
from types import ModuleType
from typing import Any

from pymodules_core.discovery.plugins.task_file import line_of_name
from pymodules_core.errors import PymodulesError, SettingsError, TaskError
from pymodules_core.experiment import Experiment
from pymodules_core.settings import structure
from pymodules_core.settings.strict import is_structured


def make_config(namespace: ModuleType, file: Path, experiment: Experiment) -> Any:
    """Build the task's ``Config`` from ``[task]``, or give the table where the task has none.

    Args:
        namespace: The imported task.
        file: Its file.
        experiment: Whose table it is.

    Raises:
        SettingsError: The table does not fit the class.
        TaskError: The class is none that settings can be made of.
    """
    config_class = getattr(namespace, "Config", None)
    table = experiment.settings.task
    if config_class is None:
        return table
    if not is_structured(config_class):
        is_class = isinstance(config_class, type)
        raise TaskError(
            f"Config is {'a plain class' if is_class else type(config_class).__name__}, "
            "expected an attrs class or dataclass",
            file=file,
            line=line_of_name(file, "Config"),
            found=config_class,
            fix="decorate it with @attrs.frozen"
            if is_class
            else "write @attrs.frozen class Config",
        )
    try:
        return structure(table, config_class, root="task")
    except SettingsError as error:
        experiment.locate(error)
        raise
    except PymodulesError:
        raise
    except Exception as error:
        # The class is the user's: annotations that no converter knows, or that name nothing.
        raise TaskError(
            f"Config cannot be made from [task]: {type(error).__name__}: {error}",
            file=file,
            line=line_of_name(file, "Config"),
            found=config_class,
            fix="annotate its fields with types of TOML: str, int, float, bool, list, dict",
        ) from error
