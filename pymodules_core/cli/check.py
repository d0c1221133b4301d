"""``pymodules check``."""

from pathlib import Path

import click

from pymodules_core.cli.options import (
    data_home_option,
    debug_option,
    experiment_argument,
    overrides_option,
    parse_overrides,
    plugins_option,
)


@click.command("check")
@experiment_argument
@overrides_option
@data_home_option
@plugins_option
@debug_option
def command(exp: str, settings: tuple[str, ...], data_home: Path | None, no_plugins: bool) -> None:
    """Try everything a run of EXP needs: build, load, one train and eval step, save, load again.

    This executes the module files and the task of EXP. Nothing is written to the experiment.
    """
    from pymodules_core.experiment import Experiment
    from pymodules_core.training.check import check_experiment

    experiment = Experiment.open(exp, data_home=data_home, overrides=parse_overrides(settings))
    for finding in check_experiment(experiment, load_installed=not no_plugins):
        click.echo(f"ok  {finding}")
    click.echo(f"{experiment.name} is ready: pymodules train {exp}")
