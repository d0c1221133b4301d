"""Every error this package raises on purpose, and how each prints.

An error says what is wrong with which value, where it came from, the closest match and the fix;
the same facts are attributes. Exit codes of the command line hang on the class.

    PymodulesError
    ├── SettingsError (ValueError)            a settings dict or experiment.toml
    ├── InvalidNameError (ValueError)         a module, experiment, checkpoint or pool name
    ├── ExperimentNotFoundError (FileNotFoundError)
    ├── ExperimentExistsError (FileExistsError)
    ├── ExistingRunError (FileExistsError)    a run is there already
    ├── RunChangedError (ValueError)          files, settings or plugins changed since a run began
    ├── InvalidSpecError (TypeError)          a ModuleSpec that a plugin made
    ├── ModuleFileError (ImportError)         a file in pymodules/modules/, or its build function
    │   └── CircularImportError
    ├── BuildError (RuntimeError)             a factory of a package
    ├── DuplicateModuleError (ValueError)
    ├── UnknownModuleError (KeyError, AttributeError)
    ├── SharedParameterError (ValueError)
    ├── PluginError (RuntimeError)            a plugin that the run needs is broken
    │   └── PluginConformanceError (AssertionError)  it lacks what the test kit asks for
    ├── TaskError (ValueError)                task.py: what it lacks, gives or returns
    │   └── UnassignedStateError (KeyError)   run.state has the state of an object, and no object
    ├── CheckpointError (ValueError)          a pool or a checkpoint file
    │   ├── MonitorError                      the monitored metric is not among the metrics
    │   ├── CheckpointNotFoundError (FileNotFoundError)
    │   │   └── LostStoreError                commits were made, and none can be read
    │   ├── CheckpointFileError               damaged, foreign or unsafe
    │   ├── WeightMismatchError               keys or shapes differ
    │   ├── UninitializedModuleError          lazy parameters at save
    │   ├── FrozenModuleError                 a frozen module changed during a run
    │   └── StoreLockedError                  another process writes to it
    ├── ProcessesError (RuntimeError)         several processes cannot train together
    └── TrainingError (RuntimeError)          the run failed (exit code 1)
        ├── RunInterruptedError               a signal ended it, saved (exit code 130, 143)
        ├── NonFiniteLossError (FloatingPointError)
        ├── StepError                         the task's own code raised
        ├── ProcessLostError (ConnectionError)  another process of the run is gone
        └── RankFailedError                   another process of the run failed, and says why
"""

from pathlib import Path

from pymodules_core.missing_packages import missing_package_fix as missing_package_fix
from pymodules_core.text import closest_match as closest_match
from pymodules_core.text import display_path as display_path
from pymodules_core.text import list_words as list_words
from pymodules_core.text import printable as printable
from pymodules_core.text import spell_out as _spell_out


class PymodulesError(Exception):
    """Base of all errors of this package.

    Args:
        what: What is wrong with which value; may span lines.
        file: Where it came from.
        line: 1-based line in ``file``.
        key: Dotted path of the setting, such as ``settings.frozen``.
        found: The offending value.
        closest: The nearest valid value.
        fix: What to do, as an imperative; to write ``closest`` where nothing else is said.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        file: Path | str | None = None,
        line: int | None = None,
        key: str | None = None,
        found: object = None,
        closest: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.file = Path(file) if file is not None else None
        self.line = line
        self.key = key
        self.found = found
        self.closest = closest
        self.fix = fix or (None if closest is None else f"write {closest!r}")

    def __str__(self) -> str:
        parts = [self.what]
        if self.file is not None:
            line = f":{self.line}" if self.line else ""
            parts = [f"{display_path(self.file)}{line}: {self.what}"]
        if self.closest is not None:
            parts.append(f"  closest match: {self.closest}")
        if self.fix is not None:
            parts.append(f"  fix: {self.fix}")
        return _spell_out("\n".join(parts))


class SettingsError(PymodulesError, ValueError):
    """A ``settings`` dict, ``experiment.toml`` or override is not valid."""


class InvalidNameError(PymodulesError, ValueError):
    """A name is not allowed or leads out of the data home."""


class ExperimentNotFoundError(PymodulesError, FileNotFoundError):
    """No experiment of that name or path."""


class ExperimentExistsError(PymodulesError, FileExistsError):
    """``new`` would write over an experiment."""


class ExistingRunError(PymodulesError, FileExistsError):
    """The experiment, or the checkpoint folder, holds a run already."""


class RunChangedError(PymodulesError, ValueError):
    """Files, settings or plugins are not those that the run to resume began with."""


class InvalidSpecError(PymodulesError, TypeError):
    """A ``ModuleSpec`` has a field of the wrong type."""


class ModuleFileError(PymodulesError, ImportError):
    """A module file cannot be read, run, or gives no module."""


class CircularImportError(ModuleFileError):
    """Module files import each other in a circle."""


class BuildError(PymodulesError, RuntimeError):
    """A module's factory failed or returned something else than a module."""


class DuplicateModuleError(PymodulesError, ValueError):
    """Two providers give a module of one name, or names that a file system may confuse."""


class UnknownModuleError(PymodulesError, KeyError, AttributeError):
    """No module of that name in the pool."""


class SharedParameterError(PymodulesError, ValueError):
    """A frozen and a trained module share a parameter."""


class PluginError(PymodulesError, RuntimeError):
    """A plugin failed and the run cannot do without it."""


class PluginConformanceError(PluginError, AssertionError):
    """A plugin lacks something of what every plugin has to fulfil."""


class TaskError(PymodulesError, ValueError):
    """The task lacks a function, or one of its functions gives something unusable."""


class UnassignedStateError(TaskError, KeyError):
    """``run.state`` holds the saved state of an object that is not made yet."""


class CheckpointError(PymodulesError, ValueError):
    """A checkpoint pool or file cannot be used."""


class MonitorError(CheckpointError):
    """The monitored metric is not among the metrics."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """The pool, module or file does not exist."""


class LostStoreError(CheckpointNotFoundError):
    """Commits were made, and none can be read any more."""


class CheckpointFileError(CheckpointError):
    """The file is damaged, is not a state dict, or may not be loaded safely."""


class WeightMismatchError(CheckpointError):
    """Keys or shapes in the file differ from the module's."""


class UninitializedModuleError(CheckpointError):
    """A lazy module has parameters without a shape."""


class FrozenModuleError(CheckpointError):
    """A frozen module changed during a run."""


class StoreLockedError(CheckpointError):
    """Another writer has the store."""


class ProcessesError(PymodulesError, RuntimeError):
    """Several processes cannot train one run: they differ, or a module cannot be shared out."""


class TrainingError(PymodulesError, RuntimeError):
    """The run started and failed."""

    exit_code = 1


class RunInterruptedError(TrainingError):
    """A signal ended the run after its step, and everything is saved.

    Its ``exit_code`` is 128 and the number of the signal, which is ``found``.
    """

    exit_code = 130


class NonFiniteLossError(TrainingError, FloatingPointError):
    """A loss is NaN or infinite."""


class StepError(TrainingError):
    """The task's own code raised during the run."""


class ProcessLostError(TrainingError, ConnectionError):
    """Another process of the run is gone without a word: killed, or its machine failed."""


class RankFailedError(TrainingError):
    """Another process of the run failed; ``found`` is its rank.

    That one says why, once. ``exit_code`` is the one it ends with.
    """


def __dir__() -> list[str]:
    return sorted(
        name
        for name, value in globals().items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(__package__)
    )
