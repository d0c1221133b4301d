"""``pymodules plugins``: what is installed, from where, which hooks, what failed and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymodules_core.cli.options import data_home_option, debug_option, json_option, plugins_option

if TYPE_CHECKING:
    from pymodules_core.discovery import PluginRecord


@click.command("plugins")
@click.argument("exp", metavar="[EXP]", required=False)
@json_option
@data_home_option
@plugins_option
@debug_option
def command(exp: str | None, as_json: bool, data_home: Path | None, no_plugins: bool) -> None:
    """Show the installed plugins; with EXP, as that experiment's settings leave them."""
    from pymodules_core.cli.output import print_json, print_table
    from pymodules_core.discovery import PluginManager
    from pymodules_core.experiment import Experiment, default_data_home

    plugins = (
        PluginManager.for_experiment(
            Experiment.open(exp, data_home=data_home), load_installed=not no_plugins
        )
        if exp
        else PluginManager(data_home=default_data_home(data_home), load_installed=not no_plugins)
    )
    plugins.provided_specs()
    plugins.report_unmatched()
    if as_json:
        print_json([_as_json(record) for record in plugins.records])
        return
    print_table(
        ("PLUGIN", "VERSION", "STATE", "HOOKS", "MODULES", "LOAD MS"),
        [
            (
                record.name,
                getattr(record.origin, "version", "built in")
                + (" (editable)" if record.is_editable else ""),
                record.state,
                ", ".join(record.hooks) or "-",
                ", ".join(record.modules) or "-",
                f"{record.load_ms:.0f}",
            )
            for record in plugins.records
        ],
    )


def _as_json(record: "PluginRecord") -> dict[str, Any]:
    failure = record.failure
    return {
        "name": record.name,
        "origin": record.origin.to_json(),
        "target": record.target,
        "editable": record.is_editable,
        "state": record.state,
        "hooks": record.hooks,
        "modules": record.modules,
        "load_ms": round(record.load_ms, 3),
        "failure": failure
        and {"stage": failure.stage, "reason": failure.reason, "fix": failure.fix},
    }
