"""``pymodules plugins``: what is installed, from where, which hooks, what failed and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymodules_core.cli import options, output

if TYPE_CHECKING:
    import importlib_metadata

    from pymodules_core.discovery import PluginRecord


@click.command("plugins")
@click.argument("exp", metavar="[EXP]", required=False)
@options.json
@options.data_home
@options.no_plugins
@options.debug
def command(exp: str | None, as_json: bool, data_home: Path | None, load_installed: bool) -> None:
    """Show the installed plugins; with EXP, as that experiment's settings leave them.

    What failed, is installed twice, or is named in EXP and not installed, is reported on standard
    error, with the fix.
    """
    from pymodules_core.discovery import PluginManager
    from pymodules_core.discovery.plugins.packaged_task import find_tasks
    from pymodules_core.discovery.selection.required_plugins import report_unmatched
    from pymodules_core.experiment import Experiment, default_data_home

    plugins = (
        PluginManager.for_experiment(
            Experiment.open(exp, data_home=data_home), load_installed=load_installed
        )
        if exp is not None
        else PluginManager(data_home=default_data_home(data_home), load_installed=load_installed)
    )
    plugins.provided_specs()
    report_unmatched(plugins)
    tasks = find_tasks() if plugins.loads_installed else {}
    if as_json:
        output.print_json(
            [
                *(_as_json(record) for record in plugins.records),
                *(_task_as_json(name, point) for name, point in tasks.items()),
            ]
        )
        return
    output.print_table(
        ("PLUGIN", "VERSION", "STATE", "HOOKS", "MODULES", "LOAD MS"),
        [
            (
                record.name,
                _version_of(record),
                record.state,
                ", ".join(record.hooks) or "-",
                ", ".join(record.modules) or "-",
                f"{record.load_ms:.0f}",
            )
            for record in plugins.records
        ],
    )
    if tasks:
        output.echo()
        output.print_table(
            ("TASK", "VERSION", "FROM"),
            [
                (name, point.dist.version if point.dist else "-", point.value)
                for name, point in tasks.items()
            ],
        )


def _version_of(record: "PluginRecord") -> str:
    if record.is_builtin:
        return "built in"
    return getattr(record.origin, "version", "-") + (" (editable)" if record.is_editable else "")


def _as_json(record: "PluginRecord") -> dict[str, Any]:
    failure = record.failure
    return {
        "kind": "plugin",
        "name": record.name,
        "origin": record.origin.to_json(),
        "target": record.target,
        "editable": record.is_editable,
        "location": record.location,
        "shadowed": record.shadowed,
        "state": record.state,
        "hooks": record.hooks,
        "modules": record.modules,
        "load_ms": round(record.load_ms, 3),
        "failure": failure
        and {"stage": failure.stage, "reason": failure.reason, "fix": failure.fix},
    }


def _task_as_json(name: str, point: "importlib_metadata.EntryPoint") -> dict[str, Any]:
    distribution = point.dist
    return {
        "kind": "task",
        "name": name,
        "origin": {
            "kind": "distribution",
            "distribution": distribution and distribution.name,
            "version": distribution and distribution.version,
            "entry_point": point.name,
        },
        "target": point.value,
    }
