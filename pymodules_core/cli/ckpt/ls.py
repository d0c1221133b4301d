"""``pymodules ckpt ls``: the pools, by records and sizes alone; no torch."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from pymodules_core.cli.options import (
    data_home_option,
    debug_option,
    experiment_argument,
    json_option,
    plugins_option,
)

if TYPE_CHECKING:
    from pymodules_core.checkpoints.tools.overview import PoolOverview, StoreOverview
    from pymodules_core.cli.ckpt.target import Target

logger = logging.getLogger("pymodules_core")


@click.command("ls")
@experiment_argument
@json_option
@data_home_option
@plugins_option
@debug_option
def command(exp: str, as_json: bool, data_home: Path | None, no_plugins: bool) -> None:
    """List the pools of EXP: epoch, metrics, modules, their size and what other pools share of it.

    Orphans are modules whose weights are there and that EXP does not have any more.
    """
    from pymodules_core.checkpoints.tools.lost_store import lost_store
    from pymodules_core.checkpoints.tools.overview import overview
    from pymodules_core.cli.ckpt.target import open_target
    from pymodules_core.cli.output import format_size, print_json, print_table

    target = open_target(exp, data_home)
    found = overview(target.path)
    orphans = _orphans(target, found, load_installed=not no_plugins)
    if lost := lost_store(target.path, experiment=target.experiment):
        logger.warning("%s", lost)
    if as_json:
        print_json([_as_json(pool, orphans) for pool in found.pools])
        return
    print_table(
        ("POOL", "EPOCH", "STEP", "METRICS", "MODULES", "SIZE", "SHARED"),
        [
            (
                pool.name,
                "-" if pool.epoch is None else str(pool.epoch),
                "-" if pool.step is None else str(pool.step),
                _metrics_text(pool),
                str(len(pool.modules)),
                format_size(pool.size_bytes),
                format_size(pool.shared_bytes),
            )
            for pool in found.pools
        ],
    )
    click.echo(_summary(found))
    if orphans:
        click.echo(f"orphans, modules that {target.name} does not have now: {', '.join(orphans)}")


def _summary(found: "StoreOverview") -> str:
    from pymodules_core.cli.output import format_size
    from pymodules_core.errors import printable

    whole = sum(pool.size_bytes for pool in found.pools)
    text = f"{len(found.pools)} pools of {format_size(whole)}"
    if found.commit is None:
        return text
    link = f" ({printable(found.link)})" if found.link else ""
    state = f", training state {format_size(found.state_bytes)}" if found.state_bytes else ""
    size = format_size(found.object_bytes)
    return f"commit {found.commit}: {text} in {size} on disk{link}{state}"


def _orphans(target: "Target", found: "StoreOverview", *, load_installed: bool) -> list[str]:
    stored = {name for pool in found.pools for name in pool.modules}
    if target.experiment is None:
        return sorted(stored - found.last_modules) if found.last_modules else []
    from pymodules_core.discovery import PluginManager
    from pymodules_core.discovery.selection.catalog import list_modules

    plugins = PluginManager.for_experiment(target.experiment, load_installed=load_installed)
    return sorted(
        stored - {module.name for module in list_modules(plugins, target.experiment).modules}
    )


def _metrics_text(pool: "PoolOverview") -> str:
    numbers = (
        f"{name} {'not finite' if value is None else format(value, '.4g')}"
        for name, value in pool.metrics.items()
    )
    return ", ".join(numbers) or "-"


def _as_json(pool: "PoolOverview", orphans: list[str]) -> dict[str, Any]:
    return attrs.asdict(pool) | {"orphans": [name for name in pool.modules if name in orphans]}
