"""Wheels that are really built, and environments that pip really installs them into."""

import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from email.parser import BytesParser
from pathlib import Path

import importlib_metadata

from pymodules_core.discovery.plugins.records import normalise

REPOSITORY = Path(__file__).parents[1]


class Environment:
    """A virtual environment and the commands in it.

    Args:
        folder: Where it is made.
        sees_libraries: Whether the libraries that the tests run with are there, too.
    """

    def __init__(self, folder: Path, *, sees_libraries: bool) -> None:
        self.folder = folder
        self._bin = folder / "bin"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (self.site,) = folder.glob("lib/python*/site-packages")
        if sees_libraries:
            # The environment's own setuptools would hide the one that torch asks for.
            self.pip("uninstall", "--quiet", "--yes", "setuptools")
            (self.site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *command: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment and check its exit code."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYMODULES")}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1"}
        result = subprocess.run(
            [self._bin / command[0], *command[1:]],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result

    def pip(self, *arguments: str) -> None:
        """Run pip without asking any index."""
        self.run("python", "-m", "pip", *arguments, cwd=self._bin)


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a project and return its path."""
    before = {*folder.glob("*.whl")}
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    result = subprocess.run([*command, source], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = {*folder.glob("*.whl")} - before
    return wheel


def requirements(wheel: Path) -> list[tuple[str, str | None]]:
    """Return each distribution that a wheel declares, and the extra that it is of."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        message = BytesParser().parsebytes(archive.read(metadata))
    return [_split(line) for line in message.get_all("Requires-Dist", [])]


def link_declared(wheel: Path, environment: Environment) -> None:
    """Let an environment see what a wheel declares, and what that declares, and nothing else.

    Links to what the tests run with: an install of torch takes half a minute.
    """
    linked: set[str] = set()
    wanted = [name for name, extra in requirements(wheel) if extra is None]
    while wanted:
        name = wanted.pop()
        if name in linked:
            continue
        linked.add(name)
        try:
            distribution = importlib_metadata.distribution(name)
        except importlib_metadata.PackageNotFoundError:  # of another platform
            continue
        for top in {path.parts[0] for path in distribution.files or ()} - {"..", "__pycache__"}:
            if not (link := environment.site / top).exists():  # the environment's own setuptools
                link.symlink_to(Path(str(distribution.locate_file(top))))
        split = map(_split, distribution.requires or ())
        wanted += [name for name, extra in split if extra is None]


def _split(requirement: str) -> tuple[str, str | None]:
    name = re.match(r"[\w.-]+", requirement)
    extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
    assert name is not None
    return normalise(name[0]), extra[1] if extra else None


def write_package(folder: Path, name: str, source: str) -> Path:
    package = name.replace("-", "_")
    root = folder / name
    (root / package).mkdir(parents=True)
    (root / package / "__init__.py").write_text(textwrap.dedent(source))
    (root / "pyproject.toml").write_text(
        textwrap.dedent(f"""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "{name}"
        version = "1.0"

        [project.entry-points.pymodules]
        plugin = "{package}"
        """)
    )
    return root
