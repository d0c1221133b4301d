"""What a person wrote, copied beside what the run wrote: ``data/sources/``."""

import hashlib
import itertools
import shutil
from pathlib import Path

from pymodules_core.errors import TrainingError
from pymodules_core.experiment import Experiment
from pymodules_core.run_files import SOURCES_DIR_NAME


def source_digests(experiment: Experiment) -> dict[str, str]:
    """Return each Python file below ``pymodules/`` with the SHA-256 of its bytes."""
    return {
        file.relative_to(experiment.path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in _python_files(experiment)
    }


def copy_sources(experiment: Experiment, data_dir: Path) -> None:
    """Copy ``experiment.toml`` and all Python files; an older copy stays as ``sources.<n>``.

    Args:
        experiment: Whose files.
        data_dir: Where the run writes.

    Raises:
        TrainingError: A file cannot be copied.
    """
    target = data_dir / SOURCES_DIR_NAME
    stage = data_dir / f"{SOURCES_DIR_NAME}.tmp"
    try:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        files = [f for f in (experiment.config_file,) if f.is_file()]
        for file in (*files, *_python_files(experiment)):
            copy = stage / file.relative_to(experiment.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        if target.exists():
            free = (data_dir / f"{SOURCES_DIR_NAME}.{number}" for number in itertools.count(1))
            target.rename(next(path for path in free if not path.exists()))
        stage.rename(target)
    except OSError as error:
        raise TrainingError(
            f"the sources of the run cannot be copied: {error.strerror or error}",
            file=target,
            fix="make the experiment's folder writable, and its files readable",
        ) from error


def _python_files(experiment: Experiment) -> list[Path]:
    # A pipe would be waited for, and what an editor keeps there is not always a file.
    files = (experiment.path / "pymodules").rglob("[!.]*.py")
    return sorted(file for file in files if file.is_file())
