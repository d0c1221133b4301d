"""``pymodules new``: a working experiment, copied from an example."""

import shutil
from pathlib import Path

import click

from pymodules_core.cli.options import data_home_option, debug_option

_EXAMPLE_PREFIX = "digits_"


@click.command("new")
@click.argument("name")
@click.option("--template", default="classifier", show_default=True, help="Which example to copy.")
@data_home_option
@debug_option
def command(name: str, template: str, data_home: Path | None) -> None:
    """Write experiment NAME into the data home, ready to train.

    Templates: classifier (encoder and head), distill (a student and a frozen teacher), gan
    (generator and discriminator with two optimizers).
    """
    from pymodules_core.discovery.weight_sources import find_source_experiments
    from pymodules_core.errors import (
        ExperimentExistsError,
        SettingsError,
        closest_match,
        display_path,
        list_words,
    )
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
    if target.exists():
        raise ExperimentExistsError(
            "there is an experiment of that name",
            file=target,
            found=name,
            fix="choose another name, or move that folder away",
        )
    # Only what a person writes: beside an example of a checkout lies the data of its runs.
    source = templates[template]
    shutil.copytree(
        source / "pymodules", target / "pymodules", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(source / "experiment.toml", target)
    click.echo(f"wrote {display_path(target)}")
    for file in sorted(path for path in target.rglob("*") if path.is_file()):
        click.echo(f"  {file.relative_to(target)}")
    where = f" --data-home {data_home}" if data_home else ""
    for source_name in find_source_experiments(target):
        if not experiment_path(home, source_name).exists():
            click.echo(
                f"first: pymodules new {source_name}{where}, then pymodules train {source_name}"
                f"{where}: its weights are the start of some modules"
            )
    click.echo(f"next: pymodules check {name}{where}, then pymodules train {name}{where}")


def _find_templates() -> dict[str, Path]:
    """Give template name to folder: inside the installed package, or in the checkout around it."""
    package = Path(__file__).parents[1]
    installed, checkout = package / "templates", package.parent / "data" / "experiments"
    folder = installed if installed.is_dir() else checkout
    return {
        path.name.removeprefix(_EXAMPLE_PREFIX): path
        for path in sorted(folder.glob(f"{_EXAMPLE_PREFIX}*"))
        if (path / "pymodules").is_dir()
    }
