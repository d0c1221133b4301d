"""``pymodules ckpt export``: modules for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pymodules_core.cli import options, output
from pymodules_core.errors import CheckpointError, display_path
from pymodules_core.reports.text import size_text

if TYPE_CHECKING:
    from pymodules_core.checkpoints.tools.export import ExportFormat


@click.command("export")
@options.experiment
@click.argument("pool")
@click.argument("modules", nargs=-1)
@click.option(
    "--to",
    "target",
    required=True,
    type=options.FullPath(path_type=Path),
    help="Folder to write to; the file with --merged.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["safetensors", "pt"]),
    help="Of the files; by default what --to ends with, else safetensors.",
)
@click.option("--merged", is_flag=True, help="Write one file with keys <module_name>.<key>.")
@click.option("--replace", is_flag=True, help="Replace files that are there.")
@options.data_home
@options.debug
def command(
    exp: str,
    pool: str,
    modules: tuple[str, ...],
    target: Path,
    format_: "ExportFormat | None",
    merged: bool,
    replace: bool,
    data_home: Path | None,
) -> None:
    """Write the modules of POOL, or MODULES of it, for programs that do not know this package."""
    from pymodules_core.cli.ckpt.target import open_target

    source = open_target(exp, data_home)

    from pymodules_core.checkpoints.loading.pool_reader import PoolReader
    from pymodules_core.checkpoints.store.paths import Layout
    from pymodules_core.checkpoints.tools.export import export_modules

    # What a run keeps, its record knows; a file that comes from elsewhere would be damage.
    if any(Layout(folder).commits.is_dir() for folder in (target, *target.absolute().parents)):
        raise CheckpointError(
            "is where a run keeps its checkpoints", file=target, fix="--to another folder"
        )
    files = export_modules(
        PoolReader(source.path).read(pool, modules or None),
        target,
        format_=format_ or ("pt" if target.suffix == ".pt" else "safetensors"),
        is_merged=merged,
        replace=replace,
    )
    if not files:
        output.echo(f"{source.name}: pool {pool} holds no module, so nothing was written")
    for file in files:
        output.echo(f"{display_path(file)}  {size_text(file.stat().st_size)}")
