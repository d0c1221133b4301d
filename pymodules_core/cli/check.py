"""``pymodules check``: tries an experiment, or an installed plugin."""

from pathlib import Path
from typing import Any

import click

from pymodules_core.cli import options, output


@click.command("check")
@click.argument("exp", metavar="[EXP]", required=False)
@click.option("--plugin", metavar="NAME", help="Try an installed plugin, or those of a package.")
@options.overrides
@options.data_home
@options.no_plugins
@options.debug
def command(
    exp: str | None,
    plugin: str | None,
    settings: tuple[str, ...],
    data_home: Path | None,
    load_installed: bool,
) -> None:
    """Try everything a run of EXP needs: build, load, one train and eval step, save, load again.

    This executes the module files and the task of EXP. Nothing is written to the experiment.

    With --plugin it tries what every plugin has to fulfil, in temporary folders and processes of
    its own. Then -s sets keys of the plugin's own table: -s decay=0.9.
    """
    if (exp is None) == (not plugin):
        raise click.UsageError("name either an experiment, or a plugin with --plugin NAME")
    given = options.parse_overrides(settings)
    if exp is None:
        _check_plugin(str(plugin), given)
        return
    from pymodules_core.cli.trust_notice import print_trust_notice
    from pymodules_core.experiment import Experiment
    from pymodules_core.training.dry_run import check_experiment

    experiment = Experiment.open(exp, data_home=data_home, overrides=given)
    print_trust_notice(experiment, load_installed=load_installed)
    for finding in check_experiment(experiment, load_installed=load_installed):
        output.echo(f"ok  {finding}")
    output.echo(f"{experiment.name} is ready: pymodules train {exp}")


def _check_plugin(name: str, keys: dict[str, Any]) -> None:
    from pymodules_core.settings.toml_text import lay_over
    from pymodules_core.testing import check_plugin

    settings: dict[str, Any] = {}
    for key, value in keys.items():
        lay_over(settings, key, value)
    for finding in check_plugin(name, settings=settings):
        output.echo(f"ok  {finding}")
    output.echo(f"{name} fulfils all that a plugin has to")
