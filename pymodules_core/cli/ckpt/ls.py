"""``pymodules ckpt ls``: the pools, by records and sizes alone; no torch."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from pymodules_core.cli import options, output
from pymodules_core.reports.text import counted, metrics_text, size_text

if TYPE_CHECKING:
    from pymodules_core.checkpoints.tools.overview import PoolOverview, StoreOverview
    from pymodules_core.cli.ckpt.target import Target

logger = logging.getLogger("pymodules_core")


@click.command("ls")
@options.experiment
@options.json
@options.data_home
@options.no_plugins
@options.debug
def command(exp: str, as_json: bool, data_home: Path | None, load_installed: bool) -> None:
    """List the pools of EXP: epoch, metrics, modules, their size and what other pools share of it.

    Orphans are modules whose weights are there and that EXP does not have any more.
    """
    from pymodules_core.checkpoints.tools.lost_store import lost_store
    from pymodules_core.checkpoints.tools.overview import overview
    from pymodules_core.cli.ckpt.target import open_target

    target = open_target(exp, data_home)
    found = overview(target.path)
    orphans = _orphans(target, found, load_installed=load_installed)
    if lost := lost_store(target.path, experiment=target.experiment):
        logger.warning("%s", lost)
    if as_json:
        output.print_json([_as_json(pool, orphans) for pool in found.pools])
        return
    output.print_table(
        ("POOL", "EPOCH", "STEP", "METRICS", "MODULES", "SIZE", "SHARED"),
        [
            (
                pool.name,
                "-" if pool.epoch is None else str(pool.epoch),
                "-" if pool.step is None else str(pool.step),
                metrics_text(pool.metrics),
                str(len(pool.modules)),
                size_text(pool.size_bytes),
                size_text(pool.shared_bytes),
            )
            for pool in found.pools
        ],
    )
    output.echo(_summary(found))
    if orphans:
        output.echo(f"orphans, modules that {target.name} does not have now: {', '.join(orphans)}")


def _summary(found: "StoreOverview") -> str:
    whole = sum(pool.size_bytes for pool in found.pools)
    text = f"{counted(len(found.pools), 'pool')} of {size_text(whole)}"
    if found.commit is None:
        return text
    link = f" ({found.link})" if found.link else ""
    state = f", training state {size_text(found.state_bytes)}" if found.state_bytes else ""
    size = size_text(found.object_bytes)
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


def _as_json(pool: "PoolOverview", orphans: list[str]) -> dict[str, Any]:
    return attrs.asdict(pool) | {"orphans": [name for name in pool.modules if name in orphans]}
