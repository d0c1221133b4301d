"""``pymodules list``: the modules of an experiment; no torch, no module file executed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymodules_core.cli import options, output
from pymodules_core.reports.text import count_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymodules_core.discovery.selection.catalog import ListedModule
    from pymodules_core.experiment import Experiment


@click.command("list")
@click.argument("exp", metavar="[EXP]", required=False)
@click.option("--build", is_flag=True, help="Build the modules to count their parameters.")
@options.json
@options.data_home
@options.no_plugins
@options.debug
def command(
    exp: str | None, build: bool, as_json: bool, data_home: Path | None, load_installed: bool
) -> None:
    """Show the modules that EXP would train: its files and those of installed packages.

    Without EXP, only what installed packages provide. No module file is executed: settings that are
    not written as literals show as "dynamic". Parameters come from the last run, or from --build.
    """
    if build and exp is None:
        raise click.UsageError("--build belongs to an experiment: name one")
    from pymodules_core.cli.trust_notice import print_trust_notice
    from pymodules_core.discovery import PluginManager
    from pymodules_core.discovery.selection.catalog import list_modules
    from pymodules_core.experiment import Experiment, default_data_home

    experiment = Experiment.open(exp, data_home=data_home) if exp is not None else None
    if experiment and build:
        print_trust_notice(experiment, load_installed=load_installed, err=True)
    plugins = (
        PluginManager.for_experiment(experiment, load_installed=load_installed)
        if experiment
        else PluginManager(data_home=default_data_home(data_home), load_installed=load_installed)
    )
    catalog = list_modules(plugins, experiment)
    counts = _parameter_counts(experiment, plugins if build else None)
    if as_json:
        output.print_json([_as_json(module, counts) for module in catalog.modules])
    elif catalog.modules:
        _print_modules(catalog.modules, counts, experiment)
    else:
        output.echo("no modules")
    if catalog.conflict:
        raise catalog.conflict


def _print_modules(
    modules: "Sequence[ListedModule]", counts: dict[str, int], experiment: "Experiment | None"
) -> None:
    output.print_table(
        ("MODULE", "FROZEN", "PARAMETERS", "WEIGHTS", "SOURCE"),
        [
            (
                module.name,
                _frozen_text(module),
                count_text(counts.get(module.name)),
                module.weights or "-",
                _source_text(module, experiment),
            )
            for module in modules
        ],
    )
    for module in modules:
        if module.problem:
            output.say(f"problem: module {module.name!r}: {module.problem}")


def _parameter_counts(experiment: "Experiment | None", plugins: Any) -> dict[str, int]:
    """Count by building where ``plugins`` are given, else read the last run's counts."""
    from pymodules_core.run_files import read_run_file

    if experiment is None:
        return {}
    if plugins is not None:
        from pymodules_core.module_pool import ModulePool

        pool = ModulePool.discover(experiment, plugins=plugins)
        return {name: entry.parameter_count for name, entry in pool.entries.items()}
    run = read_run_file(experiment.path)
    return {module.name: module.parameters for module in run.modules} if run else {}


def _frozen_text(module: "ListedModule") -> str:
    if module.problem:
        return "?"
    if module.is_dynamic:
        return "dynamic"
    return "yes" if module.is_frozen else "no"


def _source_text(module: "ListedModule", experiment: "Experiment | None") -> str:
    """Return a file's path below its experiment, which a terminal has room for."""
    from pymodules_core.specs import FileOrigin

    if experiment and isinstance(module.origin, FileOrigin):
        return os.fspath(module.origin.file).removeprefix(f"{experiment.path}{os.sep}")
    return str(module.origin)


def _as_json(module: "ListedModule", counts: dict[str, int]) -> dict[str, Any]:
    return {
        "name": module.name,
        "frozen": module.is_frozen,
        "dynamic": module.is_dynamic,
        "parameters": counts.get(module.name),
        "weights": module.weights,
        "description": module.description,
        "origin": module.origin.to_json() if module.origin else None,
        "problem": module.problem,
    }
