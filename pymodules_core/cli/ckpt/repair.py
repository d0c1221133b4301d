"""``pymodules ckpt repair``: makes a store whole again."""

from pathlib import Path

import click

from pymodules_core.cli import options, output
from pymodules_core.reports.text import counted


@click.command("repair")
@options.experiment
@options.data_home
@options.debug
def command(exp: str, data_home: Path | None) -> int:
    """Make the checkpoints of EXP whole again, from what is whole of them.

    Damaged files go to .store/quarantine, objects are made again from files of views and views from
    objects. Where no commit can be read any more, one is made of the files of the views. Exits with
    1 where something is lost.
    """
    from pymodules_core.cli.ckpt.target import open_target

    target = open_target(exp, data_home)

    from pymodules_core.checkpoints.tools.repair import repair

    result = repair(target.path)
    if result.commit is None:
        output.echo(f"{target.name}: nothing that is whole was found", err=True)
        return 1
    pools = counted(result.pools, "pool")
    output.echo(f"{target.name}: commit {result.commit}, {pools}, is whole")
    for place in result.lost:
        output.echo(f"lost: {place}", err=True)
    return 1 if result.lost else 0
