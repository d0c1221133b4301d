"""``pymodules ckpt prune``: drops pools of epochs; no torch."""

from pathlib import Path

import click

from pymodules_core.cli import options, output
from pymodules_core.reports.text import size_text


@click.command("prune")
@options.experiment
@click.argument("pools", nargs=-1)
@click.option(
    "--keep-epochs",
    type=click.IntRange(min=0),
    metavar="N",
    help="Keep the newest N pools of epochs and drop the others.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@click.option("--even-if-needed", is_flag=True, help="Drop what other experiments started from.")
@options.data_home
@options.debug
def command(
    exp: str,
    pools: tuple[str, ...],
    keep_epochs: int | None,
    dry_run: bool,
    even_if_needed: bool,
    data_home: Path | None,
) -> None:
    """Drop POOLS, or all but the newest pools of epochs; frzn, init, last and best always stay.

    What other experiments took their initial weights from is kept without --even-if-needed.
    """
    from pymodules_core.checkpoints.tools.lineage import users_of
    from pymodules_core.checkpoints.tools.pruning import plan_pruning, prune
    from pymodules_core.cli.ckpt.target import open_target

    if not pools and keep_epochs is None:
        raise click.UsageError("name the pools to drop, or --keep-epochs N")
    target = open_target(exp, data_home)
    needed = (
        {}
        if target.experiment is None or even_if_needed
        else users_of(target.experiment.data_home, target.experiment.name)
    )
    plan = plan_pruning(target.path, pools, keep_epochs=keep_epochs, needed=needed)
    if not plan.pools:
        output.echo(f"{target.name}: nothing to drop")
        return
    if not dry_run:
        prune(target.path, plan.pools)
    verb = "would drop" if dry_run else "dropped"
    output.echo(
        f"{target.name}: {verb} {', '.join(plan.pools)}, {size_text(plan.freed_bytes)} on disk"
    )
