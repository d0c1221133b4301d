"""``pymodules new-plugin``: a package that provides a module, with tests and CI."""

import keyword
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pymodules_core.cli import options, output
from pymodules_core.errors import ExperimentExistsError, InvalidNameError, display_path

# The names of the example package, longest first, and what each becomes.
_DISTRIBUTION = "pymodules-example"
_PACKAGE = "pymodules_example"
_MODULE = "example_edges"
_ENTRY_POINT = "example"
_PREFIX = "pymodules_"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*")
_TAKEN = {"pymodules_core", "tests", "torch", *sys.stdlib_module_names}
# Copied as it is: the word "example" stands in its text.
_LICENSE = "LICENSE"
_MADE = {"__pycache__", "dist", ".venv", ".pytest_cache", ".ruff_cache"}


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--folder",
    type=options.FullPath(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to; the working directory by default.",
)
@options.debug
def command(name: str, folder: Path) -> None:
    """Write a package NAME that provides a module: hook, settings, tests, README and CI.

    It installs, trains and passes its own tests as it is; NAME is what pip will call it.
    """
    package = _package_name(name)
    target = folder / name
    if target.exists():
        raise ExperimentExistsError(
            "there is a file or folder of that name",
            file=target,
            found=name,
            fix="choose another name, or --folder",
        )
    output.write_folder(target, _files(name, package), option="--folder")
    shown = display_path(target)
    output.echo(f"next: make test in {shown}; then pip install -e {shown} and pymodules plugins")


def _package_name(name: str) -> str:
    """Return the name that Python imports a distribution by.

    Raises:
        InvalidNameError: It is none that pip takes and Python can import.
    """
    from pymodules_core.names import check_module_name

    fix = "write lower-case words with hyphens: acme-encoders"
    if not _NAME.fullmatch(name):
        found = _NAME.fullmatch(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
        raise InvalidNameError(
            f"{name!r} is not a name for a package",
            found=name,
            closest=found and found[0],
            fix=None if found else fix,
        )
    package = re.sub(r"[-.]", "_", name)
    if keyword.iskeyword(package):
        raise InvalidNameError(f"{name!r} is a word of Python's own", found=name, fix=fix)
    if package in _TAKEN or _is_taken(package):
        raise InvalidNameError(f"{name!r} would hide the package {package}", found=name, fix=fix)
    # The module of the package is called after it.
    check_module_name(f"{package.removeprefix(_PREFIX)}_edges")
    return package


def _is_taken(package: str) -> bool:
    """Return whether an installed package has the name; one's own plugin may be written again."""
    from importlib.util import find_spec

    from pymodules_core.discovery.plugins.entry_points import find_entry_points

    targets = (found.record.target for found in find_entry_points(warns=False))
    own = {target.partition(":")[0].partition(".")[0] for target in targets}
    return package not in own and find_spec(package) is not None


def _files(name: str, package: str) -> Iterator[tuple[Path, bytes]]:
    """Yield path and content of each file of the example package under the new names."""
    source = _find_template()
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = file.relative_to(source)
        if _MADE & {*place.parts}:
            continue
        text = file.read_text("utf-8")
        if file.name != _LICENSE:
            text = _rename(text, name, package)
        yield Path(_rename(str(place), name, package)), text.encode()


def _rename(text: str, name: str, package: str) -> str:
    short = package.removeprefix(_PREFIX)
    new_names = {
        _DISTRIBUTION: name,
        _PACKAGE: package,
        _MODULE: f"{short}_edges",
        _ENTRY_POINT: short,
    }
    pattern = "|".join(rf"\b{old}\b" for old in new_names)
    return re.sub(pattern, lambda found: new_names[found[0]], text)


def _find_template() -> Path:
    """Return the example package: inside the installed one, or in the checkout around it."""
    package = Path(__file__).parents[1]
    installed = package / "templates" / _DISTRIBUTION
    return installed if installed.is_dir() else package.parent / "plugins" / _DISTRIBUTION
