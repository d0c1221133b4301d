"""``pymodules train``."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pymodules_core.cli.options import (
    data_home_option,
    debug_option,
    experiment_argument,
    overrides_option,
    parse_overrides,
    plugins_option,
)

if TYPE_CHECKING:
    from pymodules_core.experiment import Experiment
    from pymodules_core.training import RunResult


@click.command("train")
@experiment_argument
@click.option("--resume", is_flag=True, help="Go on with the run that is there, if there is one.")
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Go on although files, settings or plugins changed since the run began.",
)
@click.option("--reset", is_flag=True, help="Move the run that is there aside and start anew.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before --reset moves a run.")
@click.option("--epochs", type=int, help="Short for -s train.epochs=N.")
@click.option("--device", help="Short for -s train.device=D: auto, cpu, cuda, cuda:1.")
@overrides_option
@data_home_option
@plugins_option
@debug_option
def command(
    exp: str,
    resume: bool,
    accept_changes: bool,
    reset: bool,
    yes: bool,
    epochs: int | None,
    device: str | None,
    settings: tuple[str, ...],
    data_home: Path | None,
    no_plugins: bool,
) -> None:
    """Train EXP from its initial weights to its last epoch.

    A run that is there already is refused, unless --resume goes on with it or --reset moves it to
    data.<n>; nothing is deleted. Ctrl-C ends a run after its step, saved, to be resumed.
    """
    if resume and reset:
        raise click.UsageError("--resume goes on with the run, --reset moves it aside: choose one")
    if accept_changes and not resume:
        raise click.UsageError("--accept-changes belongs to --resume")
    from pymodules_core.experiment import Experiment
    from pymodules_core.run_files import has_run, refuse_existing_run

    overrides = parse_overrides(settings, train__epochs=epochs, train__device=device)
    experiment = Experiment.open(exp, data_home=data_home, overrides=overrides)
    if not reset and not resume:
        # Before torch is imported: a refusal comes at once.
        refuse_existing_run(experiment)
    elif reset and has_run(experiment):
        _tell_users(experiment)
        if not yes and sys.stdin.isatty():
            click.confirm(f"move the run of {experiment.name!r} aside?", abort=True)

    from pymodules_core.training import Trainer

    result = Trainer(
        experiment,
        existing="reset" if reset else "resume" if resume else "refuse",
        accept_changes=accept_changes,
        load_installed=not no_plugins,
    ).fit()
    _print_result(result)


def _tell_users(experiment: "Experiment") -> None:
    """Say which experiments started from the run that is moved aside: their ancestor goes."""
    from pymodules_core.checkpoints.lineage import users_of
    from pymodules_core.errors import list_words

    users = users_of(experiment.data_home, experiment.name)
    names = sorted({user for pool_users in users.values() for user in pool_users})
    if names:
        _say(
            f"weights of this run were the start of {list_words(names)}; moved aside it stays on "
            "disk, and names lead to the new run"
        )


def _say(text: str) -> None:
    """Print a line before the run: that nobody reads it must not end the command here."""
    with suppress(OSError):
        click.echo(text)


def _print_result(result: "RunResult") -> None:
    from pymodules_core.cli.output import format_count, format_size, print_table
    from pymodules_core.errors import display_path
    from pymodules_core.run_files import (
        CHECKPOINTS_DIR_NAME,
        METRICS_FILE_NAME,
        RUN_FILE_NAME,
        read_run_file,
    )

    click.echo(
        f"\n{result.experiment}: {result.epochs} epochs, {result.steps:,} steps in "
        f"{result.wall_s:.1f} s ({result.stop_reason})"
    )
    run = read_run_file(result.data_dir.parent)
    if run and run.best:
        best = run.best
        click.echo(
            f"best {best.metric}: none, it was never a number"
            if best.value is None
            else f"best {best.metric}: {best.value:.4g} after epoch {best.epoch}"
        )
    click.echo()
    print_table(
        ("MODULE", "TRAINED", "PARAMETERS", "WEIGHTS FROM"),
        [
            (
                module.name,
                "frozen" if module.frozen else "yes" if module.trained else "no",
                format_count(module.parameters),
                module.weights or "built",
            )
            for module in (run.modules if run else ())
        ],
    )
    folder = result.data_dir / CHECKPOINTS_DIR_NAME
    files = list(folder.glob("*/*.pt"))
    size = sum(file.stat().st_size for file in files)
    epochs = [name for name in result.pools if name.startswith("epoch_")]
    pools = [name for name in result.pools if name not in epochs]
    if epochs:
        pools.append(epochs[0] if len(epochs) == 1 else f"{epochs[0]} … {epochs[-1]}")
    click.echo(
        f"\ncheckpoints  {display_path(folder)}/<pool>/<module_name>.pt\n"
        f"             pools {', '.join(pools)}: {len(files)} files, {format_size(size)}\n"
        f"metrics      {display_path(result.data_dir / METRICS_FILE_NAME)}\n"
        f"record       {display_path(result.data_dir / RUN_FILE_NAME)}"
    )
    for file in sorted(result.data_dir.glob("*.png")):
        click.echo(f"picture      {display_path(file)}")
