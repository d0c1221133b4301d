"""``pymodules new``: a working experiment, copied from an example."""

import os
import shlex
from pathlib import Path

import click

from pymodules_core.cli import options, output
from pymodules_core.errors import ExperimentExistsError, SettingsError, closest_match, list_words

_EXAMPLE_PREFIX = "digits_"


@click.command("new")
@click.argument("name")
@click.option("--template", default="classifier", show_default=True, help="Which example to copy.")
@options.data_home
@options.debug
def command(name: str, template: str, data_home: Path | None) -> None:
    """Write experiment NAME into the data home, ready to train.

    Templates: classifier (encoder and head), distill (a student and a frozen teacher), gan
    (generator and discriminator with two optimizers).
    """
    from pymodules_core.discovery.scan.static_reader import find_source_experiments
    from pymodules_core.experiment import default_data_home, experiment_path

    templates = _find_templates()
    if template not in templates:
        raise SettingsError(
            f"there is no template {template!r}; there are: {list_words(templates)}",
            key="--template",
            found=template,
            closest=closest_match(template, templates),
        )
    home = default_data_home(data_home)
    target = experiment_path(home, name)
    _refuse_same_name(target)
    # Only what a person writes: beside an example of a checkout lies the data of its runs.
    source = templates[template]
    files = (source / "experiment.toml", *sorted((source / "pymodules").rglob("*.py")))
    content = ((file.relative_to(source), file.read_bytes()) for file in files)
    output.write_folder(target, content, option="--data-home")
    where = f" --data-home {shlex.quote(os.fspath(data_home))}" if data_home else ""
    name = shlex.quote(name)
    for source_name in find_source_experiments(target):
        if not experiment_path(home, source_name).exists():
            output.echo(
                f"first: pymodules new {source_name}{where}, then pymodules train {source_name}"
                f"{where}: its weights are the start of some modules"
            )
    output.echo(f"next: pymodules check {name}{where}, then pymodules train {name}{where}")


def _refuse_same_name(target: Path) -> None:
    """Refuse a name that a file system may hold for one that is there."""
    from pymodules_core.names import fold_name

    name, folder = target.name, target.parent
    for there in folder.iterdir() if folder.is_dir() else ():
        if fold_name(there.name) == fold_name(name):
            raise ExperimentExistsError(
                "there is a file or folder of that name"
                if there.name == name
                else f"is there, and some file systems hold {name!r} for the same name",
                file=there,
                found=name,
                fix="choose another name, or move that one away",
            )


def _find_templates() -> dict[str, Path]:
    """Return template name to folder: in the installed package, or in the checkout around it."""
    package = Path(__file__).parents[1]
    installed, checkout = package / "templates", package.parent / "data" / "experiments"
    folder = installed if installed.is_dir() else checkout
    return {
        path.name.removeprefix(_EXAMPLE_PREFIX): path
        for path in sorted(folder.glob(f"{_EXAMPLE_PREFIX}*"))
        if (path / "pymodules").is_dir()
    }
