"""An experiment: a folder, its ``experiment.toml``, and the data home it lives in.

Opening one reads ``experiment.toml`` and nothing else; no file of it is executed.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from pymodules_core.errors import (
    ExperimentNotFoundError,
    PymodulesError,
    SettingsError,
    closest_match,
    display_path,
    list_words,
)
from pymodules_core.names import check_path_name
from pymodules_core.settings import ExperimentSettings, structure
from pymodules_core.settings.structure import KeyPath

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
        return _find_line(self.config_file, path)

    def is_overridden(self, key: str) -> bool:
        """Tell whether an override gave a dotted key, its table, or a part of it."""
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
    """Give the data home, absolute: the argument, else the variable, else ``./data``."""
    if data_home is None:
        data_home = Path(os.environ.get(DATA_HOME_VARIABLE) or "data")
    return data_home.absolute()


def list_experiments(data_home: Path) -> list[Path]:
    """Give the experiment folders of a data home, sorted by name."""
    folder = data_home / _EXPERIMENTS
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_experiment(path))


def experiment_path(data_home: Path, name: str) -> Path:
    """Give the folder of a named experiment, whether it exists or not.

    Raises:
        InvalidNameError: If the name is no plain folder name.
    """
    return data_home / _EXPERIMENTS / check_path_name(name, kind="experiment name")


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``train.epochs=3`` into its dotted key and its value, read as TOML.

    A value that is no TOML is taken as text, so that ``train.device=cpu`` needs no quotes.

    Raises:
        SettingsError: If there is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(
            f"override {text!r} has no value", found=text, fix="write key=value: train.epochs=3"
        )
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def lay_over(data: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key in nested tables, which are made where they are not there.

    Raises:
        SettingsError: A part of the key is a value.
    """
    *tables, last = key.split(".")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise SettingsError(
                f"override {key!r}: {table!r} is a value, no table",
                key=key,
                fix="name a key of a table: train.epochs=3",
            )
    data[last] = value


def _is_experiment(path: Path) -> bool:
    return (path / "pymodules").is_dir() or (path / CONFIG_FILE_NAME).is_file()


def _find(experiment: str | Path, data_home: Path | None) -> tuple[Path, Path]:
    text = str(experiment)
    as_path = Path(text).expanduser()
    is_path = isinstance(experiment, Path) or "/" in text or os.sep in text or text in {".", ".."}
    if not is_path:
        home = default_data_home(data_home)
        named = experiment_path(home, text)
        if _is_experiment(named):
            return named, home
        if not as_path.is_dir() or not _is_experiment(as_path):
            names = [path.name for path in list_experiments(home)]
            near = closest_match(text, names)
            raise ExperimentNotFoundError(
                f"no experiment {text!r} in {display_path(home)}; there are: {list_words(names)}",
                found=text,
                closest=near,
                fix=f"pymodules new {text}, or --data-home / {DATA_HOME_VARIABLE} for another home",
            )
    path = as_path.resolve() if as_path.name in {"", ".", ".."} else as_path
    if not path.is_dir():
        raise ExperimentNotFoundError(
            f"no folder {display_path(path)}", found=text, fix="give a name or an existing folder"
        )
    if not _is_experiment(path):
        raise ExperimentNotFoundError(
            f"{display_path(path)} is no experiment: it has neither {CONFIG_FILE_NAME} "
            "nor pymodules/",
            found=text,
            fix="pymodules new NAME writes one",
        )
    parent = path.absolute().parent
    if data_home is None and parent.name == _EXPERIMENTS:
        return path, parent.parent
    return path, default_data_home(data_home)


def _read_settings(file: Path, overrides: Mapping[str, Any]) -> ExperimentSettings:
    try:
        # utf-8-sig: editors on Windows put a byte order mark first.
        text = file.read_text(encoding="utf-8-sig") if file.exists() else ""
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        message = str(error).split(" (at ")[0]
        column = f" (column {found[2]})" if found else ""
        raise SettingsError(
            f"not valid TOML{column}: {message}",
            file=file,
            # Without a place in it, the message means the end of the document.
            line=int(found[1]) if found else len(text.splitlines()),
            fix="write each key and each table once"
            if message.startswith("Cannot")
            else "texts need quotes, and true and false are lower case",
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"not UTF-8 text: byte {error.start}", file=file, fix="save it as UTF-8"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"cannot be read: {error.strerror}", file=file, fix="make it a readable file"
        ) from error
    settings = structure(
        data, ExperimentSettings, root="", file=file, line_of=lambda path: _find_line(file, path)
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


def _find_line(file: Path, path: KeyPath) -> int | None:
    """Find a key by its table header; enough for a message, so unusual spellings give None."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return _scan_for_key(lines, path)


def _scan_for_key(lines: Iterable[str], path: KeyPath) -> int | None:
    table: tuple[str, ...] = ()
    header_line: int | None = None
    for number, line in enumerate(lines, start=1):
        header = re.fullmatch(r"\s*\[\[?([^\[\]]+)\]\]?\s*(#.*)?", line)
        if header:
            table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            if table == path:
                header_line = number
            continue
        key = re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line)
        if key:
            parts = tuple(part.strip("\"'") for part in key[1].split("."))
            full = (*table, *parts)
            # An inline table holds the rest of the path on the key's own line.
            if full == path[: len(full)] and len(full) > len(table):
                return number
    return header_line
