"""``pymodules plot``: a page with the charts of runs; no torch, no network."""

from pathlib import Path

import click

from pymodules_core.cli import options
from pymodules_core.cli.output import echo
from pymodules_core.errors import PymodulesError, display_path
from pymodules_core.reports.text import size_text

_PAGE_NAME = "plot.html"
_PAGE_NAME_OF_SEVERAL = "compare.html"


@click.command("plot")
@click.argument("exps", metavar="EXP...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=options.FullPath(path_type=Path, dir_okay=False),
    help=f"The file to write; else data/{_PAGE_NAME} of the experiment, or {_PAGE_NAME_OF_SEVERAL} "
    "here for several.",
)
@options.data_home
@options.debug
def command(exps: tuple[str, ...], output: Path | None, data_home: Path | None) -> None:
    """Write one HTML page with metrics, checkpoints, modules and lineage of the runs of EXP...

    The page needs no network and no other file. Several experiments are laid over one another.
    """
    from pymodules_core.reports.page import make_page
    from pymodules_core.reports.subjects import open_subjects

    subjects = open_subjects(exps, data_home=data_home)
    content = make_page(subjects).encode()
    target = output or (
        subjects[0].experiment.data_dir / _PAGE_NAME
        if len(subjects) == 1
        else Path(_PAGE_NAME_OF_SEVERAL)
    )
    _write(target, content)
    echo(f"wrote {display_path(target)} ({size_text(len(content))})")


def _write(target: Path, content: bytes) -> None:
    """Write a page, or replace one; whoever has it open never sees half of it.

    Raises:
        PymodulesError: Something else is there, or it cannot be written.
    """
    from pymodules_core.reports.page import is_page
    from pymodules_core.run_files import replace_file

    try:
        if target.exists():
            with target.open("rb") as file:
                is_ours = is_page(file.read(1000))
            if not is_ours:
                raise PymodulesError(
                    "exists and is not a page of pymodules plot",
                    file=target,
                    fix="choose another name: -o FILE",
                )
        replace_file(target, content)
    except OSError as error:
        raise PymodulesError(
            f"cannot be written: {error.strerror or error}",
            file=target,
            fix="choose another file in a folder that exists: -o FILE",
        ) from error
