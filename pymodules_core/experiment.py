"""An experiment: a folder, its ``experiment.toml``, and the data home it lives in.

Opening one reads ``experiment.toml`` and nothing else; no file of it is executed.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs

from pymodules_core.errors import (
    ExperimentNotFoundError,
    InvalidNameError,
    PymodulesError,
    SettingsError,
    closest_match,
    display_path,
    list_words,
)
from pymodules_core.names import check_path_name, resolve_inside
from pymodules_core.settings import ExperimentSettings, structure
from pymodules_core.settings.structure import KeyPath
from pymodules_core.settings.toml_text import find_line, lay_over, read_toml

DATA_HOME_VARIABLE = "PYMODULES_DATA_HOME"
CONFIG_FILE_NAME = "experiment.toml"

_EXPERIMENTS = "experiments"

ErrorT = TypeVar("ErrorT", bound=PymodulesError)


@attrs.frozen(kw_only=True)
class Experiment:
    """One experiment and its checked settings.

    Attributes:
        name: The folder's name.
        path: The experiment's folder, absolute.
        data_home: The folder, absolute, that holds ``experiments/`` and ``module_ckps/``.
        settings: ``experiment.toml`` with the overrides laid on top.
        overrides: What ``-s key=value`` and options changed, as dotted keys.
    """

    name: str
    path: Path
    data_home: Path
    settings: ExperimentSettings
    overrides: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def open(
        cls,
        experiment: "str | Path | Experiment",
        *,
        data_home: Path | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> "Experiment":
        """Find an experiment by name or path and read its settings.

        Args:
            experiment: A name in the data home, the path of a folder, or an experiment that is
                open already and is given back.
            data_home: Overrides the environment variable and ``./data``.
            overrides: Dotted keys to values, laid over ``experiment.toml``.

        Raises:
            ExperimentNotFoundError: If there is none.
            InvalidNameError: If the name is none, or its link or one in ``data/`` leads out of the
                data home.
            SettingsError: If ``experiment.toml`` or an override is not valid, or an open experiment
                comes with a data home or overrides, which were read when it was opened.
        """
        if isinstance(experiment, Experiment):
            if data_home is not None or overrides:
                raise SettingsError(
                    f"experiment {experiment.name!r} is open already: data_home and overrides come "
                    "too late",
                    found=overrides or data_home,
                    fix="give them to Experiment.open",
                )
            return experiment
        # Absolute: a task may change the working directory, and the run must not move with it.
        path, home = (folder.absolute() for folder in _find(experiment, data_home))
        _check_data(path, home)
        changes = dict(overrides or {})
        return cls(
            name=path.name,
            path=path,
            data_home=home,
            settings=_read_settings(path / CONFIG_FILE_NAME, changes),
            overrides=changes,
        )

    @property
    def modules_dir(self) -> Path:
        """Folder of the module files."""
        return self.path / "pymodules" / "modules"

    @property
    def task_file(self) -> Path:
        """The task."""
        return self.path / "pymodules" / "task.py"

    @property
    def config_file(self) -> Path:
        """``experiment.toml``, which need not exist."""
        return self.path / CONFIG_FILE_NAME

    @property
    def data_dir(self) -> Path:
        """What the run writes."""
        return self.path / "data"

    def line_of(self, path: KeyPath) -> int | None:
        """Find the 1-based line of a key in ``experiment.toml``."""
        return find_line(self.config_file, path)

    def is_overridden(self, key: str) -> bool:
        """Return whether an override gave a dotted key, its table, or a part of it."""
        return any(
            f"{key}.".startswith(f"{given}.") or f"{given}.".startswith(f"{key}.")
            for given in self.overrides
        )

    def locate(self, error: ErrorT) -> ErrorT:
        """Say where what is behind ``error.key`` was written: as an override, or file and line."""
        key = error.key or ""
        if self.is_overridden(key):
            error.file = error.line = None
            error.what = f"override {error.what}"
        else:
            path = tuple(key.split("."))
            # A key that is missing belongs below the head of its table.
            error.file, error.line = self.config_file, self.line_of(path) or self.line_of(path[:-1])
        return error


def default_data_home(data_home: Path | None = None) -> Path:
    """Return the data home, absolute: the argument, else the variable, else ``./data``.

    Raises:
        SettingsError: Something else than a folder is there.
    """
    if data_home is None:
        data_home = Path(os.environ.get(DATA_HOME_VARIABLE) or "data")
    if os.path.lexists(data_home) and not data_home.is_dir():
        raise SettingsError(
            f"data home {display_path(data_home)} is not a folder",
            found=str(data_home),
            fix=f"name a folder: --data-home / {DATA_HOME_VARIABLE}",
        )
    return data_home.absolute()


def list_experiments(data_home: Path) -> list[Path]:
    """Return the experiment folders of a data home, sorted by name."""
    folder = data_home / _EXPERIMENTS
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_experiment(path))


def experiment_path(data_home: Path, name: str) -> Path:
    """Return the folder of a named experiment, whether it exists or not.

    Raises:
        InvalidNameError: If the name is not a plain folder name.
    """
    return data_home / _EXPERIMENTS / check_path_name(name, kind="experiment name")


def expand_path(text: str | Path) -> Path:
    """Return the path of a text; ``~`` of a user who is not known stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  pathlib raises then


def _is_experiment(path: Path) -> bool:
    try:
        return (path / "pymodules").is_dir() or (path / CONFIG_FILE_NAME).is_file()
    except PermissionError:  # one that may not be looked into does not hide the others
        return False


def _find(experiment: str | Path, data_home: Path | None) -> tuple[Path, Path]:
    text = str(experiment)
    as_path = expand_path(text)
    is_path = isinstance(experiment, Path) or "/" in text or os.sep in text or text in {".", ".."}
    if not is_path:
        home = default_data_home(data_home)
        named = experiment_path(home, text)
        if _is_experiment(named):
            by_path = f"name it by its path: {display_path(named)}"
            resolve_inside(home, _EXPERIMENTS, text, kind="experiment name", fix=by_path)
            return named, home
        if not _is_experiment(as_path):
            raise _no_experiment_called(text, home)
    path = as_path.resolve() if as_path.name in {"", ".", ".."} else as_path
    if not os.path.lexists(path):
        names = [path.name for path in list_experiments(default_data_home(data_home))]
        near = closest_match(path.name, names)
        raise ExperimentNotFoundError(
            f"no folder {display_path(path)}",
            found=text,
            closest=near,
            fix=None if near else "give a name or an existing folder",
        )
    if not _is_experiment(path):
        raise _no_experiment(path, text)
    parent = path.absolute().parent
    if data_home is None and parent.name == _EXPERIMENTS:
        return path, parent.parent
    return path, default_data_home(data_home)


def _no_experiment_called(name: str, home: Path) -> ExperimentNotFoundError:
    path = experiment_path(home, name)
    if os.path.lexists(path):
        return _no_experiment(path, name)
    names = [found.name for found in list_experiments(home)]
    near = closest_match(name, names)
    elsewhere = f"--data-home / {DATA_HOME_VARIABLE} for another home"
    return ExperimentNotFoundError(
        f"no experiment {name!r} in {display_path(home)}; there are: {list_words(names)}",
        found=name,
        closest=near,
        fix=f"write {near!r}, or {elsewhere}" if near else f"pymodules new {name}, or {elsewhere}",
    )


def _check_data(path: Path, home: Path) -> None:
    """Refuse links that would have a run write elsewhere, and pipes that it would wait for."""
    root = home if path.resolve().is_relative_to(home.resolve()) else path
    data = path / "data"
    fix = f"put it there itself, or move the whole data home: --data-home / {DATA_HOME_VARIABLE}"
    for entry in (data, *data.glob("*"), *data.glob("module_ckps/*")):
        if entry.is_symlink():
            resolve_inside(root, str(entry), kind="experiment name", fix=fix)
        if entry.exists() and not (entry.is_file() or entry.is_dir()):
            raise InvalidNameError(
                f"{display_path(entry)} is a device, pipe or socket, expected a file or folder",
                key="experiment name",
                found=str(entry),
                fix="remove it",
            )


def _no_experiment(path: Path, text: str) -> ExperimentNotFoundError:
    """Return an error about what something that is there lacks to be an experiment."""
    reason = f"is not an experiment: it has neither {CONFIG_FILE_NAME} nor pymodules/"
    fix = "pymodules new NAME writes one"
    if not path.is_dir():
        reason, fix = "is not a folder", "give a name or an existing folder"
    elif not os.access(path, os.R_OK | os.X_OK):
        reason, fix = "cannot be read: Permission denied", "make it readable"
    return ExperimentNotFoundError(f"{display_path(path)} {reason}", found=text, fix=fix)


def _read_settings(file: Path, overrides: Mapping[str, Any]) -> ExperimentSettings:
    data = read_toml(file)
    settings = structure(
        data, ExperimentSettings, root="", file=file, line_of=partial(find_line, file)
    )
    if not overrides:
        return settings
    for key, value in overrides.items():
        lay_over(data, key, value)
    try:
        return structure(data, ExperimentSettings, root="")
    except SettingsError as error:
        # The file by itself is valid, so it is an override that fails: no line to point to.
        error.what = f"override {error.what}"
        raise
