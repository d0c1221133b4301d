"""``pymodules train``."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pymodules_core.cli import options, output
from pymodules_core.errors import list_words
from pymodules_core.processes.environment import is_elastic, rank_info

if TYPE_CHECKING:
    from pymodules_core.cli.launch import Existing
    from pymodules_core.experiment import Experiment
    from pymodules_core.processes.group import Processes
    from pymodules_core.training.trainer import Trainer


@click.command("train")
@options.experiment
@click.option("--resume", is_flag=True, help="Resume the run that is there, if there is one.")
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Resume although files, settings or plugins changed since the run began.",
)
@click.option("--reset", is_flag=True, help="Move the run that is there aside and start again.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before --reset moves a run.")
@click.option("--epochs", type=int, help="Short for -s train.epochs=N.")
@click.option("--device", help="Short for -s train.device=D: auto, cpu, cuda, cuda:1.")
@click.option("--nproc", type=click.IntRange(min=1), help="Train in N processes of this machine.")
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    help="With --nproc: resume from the latest commit where a process fails, up to N times.",
)
@options.overrides
@options.data_home
@options.no_plugins
@options.debug
def command(
    exp: str,
    resume: bool,
    accept_changes: bool,
    reset: bool,
    yes: bool,
    epochs: int | None,
    device: str | None,
    nproc: int | None,
    max_restarts: int | None,
    settings: tuple[str, ...],
    data_home: Path | None,
    load_installed: bool,
) -> int:
    """Train EXP from its initial weights to its last epoch.

    A run that is there already is refused, unless --resume resumes it or --reset moves it to
    data.<n>; nothing is deleted. Ctrl-C ends a run after its step, saved, to be resumed.
    """
    _check_usage(resume=resume, reset=reset, accept_changes=accept_changes)
    _check_launch(nproc, max_restarts)
    from pymodules_core.cli.train_result import print_result
    from pymodules_core.experiment import Experiment

    ranks = rank_info()
    existing: Existing = "reset" if reset else "resume" if resume else "refuse"
    if ranks.restarts:  # by torchrun, after a failure: it is the same run
        existing = "resume"

    def open_experiment() -> Experiment:
        overrides = options.parse_overrides(settings, train__epochs=epochs, train__device=device)
        return Experiment.open(exp, data_home=data_home, overrides=overrides)

    def make_trainer(experiment: Experiment, processes: "Processes | None" = None) -> "Trainer":
        from pymodules_core.cli.trust_notice import print_trust_notice
        from pymodules_core.training.trainer import Trainer

        if ranks.is_first:
            print_trust_notice(experiment, load_installed=load_installed)
        return Trainer(
            experiment,
            existing=existing,
            accept_changes=accept_changes,
            load_installed=load_installed,
            processes=processes,
        )

    if ranks.size > 1:
        from pymodules_core.processes.group import Processes

        with Processes.join() as processes:
            # What is wrong in all of them one reports; what is wrong in one only, that one.
            experiment = processes.run_on_all(open_experiment)
            result = make_trainer(experiment, processes).fit()
        if ranks.is_first:
            print_result(result)
        return 0
    experiment = open_experiment()
    # Before torch is imported: a refusal comes at once.
    _check_existing(experiment, existing, asks=not yes and sys.stdin.isatty())
    if nproc is not None and (nproc > 1 or max_restarts):
        from pymodules_core.cli.launch import launch

        is_debug = logging.getLogger("pymodules_core").level == logging.DEBUG
        arguments = ["train", exp, "--yes", *(f"--set={text}" for text in settings)]
        arguments += _as_options({"data-home": data_home, "epochs": epochs, "device": device})
        arguments += _as_options(
            {"accept-changes": accept_changes, "no-plugins": not load_installed, "debug": is_debug}
        )
        return launch(
            experiment,
            arguments,
            existing=existing,
            processes=nproc,
            max_restarts=max_restarts or 0,
            is_debug=is_debug,
        )
    print_result(make_trainer(experiment).fit())
    return 0


def _as_options(values: Mapping[str, object]) -> list[str]:
    """Return values as command-line options: of True the flag, of False and None nothing."""
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in values.items()
        if value is not None and value is not False
    ]


def _check_existing(experiment: "Experiment", existing: "Existing", *, asks: bool) -> None:
    from pymodules_core.checkpoints.tools.lost_store import refuse_lost_store
    from pymodules_core.run_files import has_run, refuse_existing_run

    if existing == "refuse":
        refuse_existing_run(experiment)
    elif existing == "resume":
        refuse_lost_store(experiment)
    elif has_run(experiment):
        _report_users(experiment)
        if asks:
            click.confirm(f"move the run of {experiment.name!r} aside?", abort=True)


def _check_usage(*, resume: bool, reset: bool, accept_changes: bool) -> None:
    if resume and reset:
        raise click.UsageError("--resume resumes the run, --reset moves it aside: choose one")
    if accept_changes and not resume:
        raise click.UsageError("--accept-changes belongs to --resume")


def _check_launch(nproc: int | None, max_restarts: int | None) -> None:
    """Refuse options that contradict how this process was launched.

    Raises:
        UsageError: They do.
    """
    if nproc is not None and ("RANK" in os.environ or is_elastic()):
        raise click.UsageError(
            "--nproc starts processes, and a launcher such as torchrun has started this one: leave "
            "--nproc out under torchrun"
        )
    if max_restarts is not None and nproc is None:
        raise click.UsageError(
            "--max-restarts belongs to --nproc; under torchrun give it to torchrun: "
            f"torchrun --max-restarts={max_restarts} …"
        )


def _report_users(experiment: "Experiment") -> None:
    """Say which experiments started from the run that is moved aside: their ancestor goes."""
    from pymodules_core.checkpoints.tools.lineage import users_of

    users = users_of(experiment.data_home, experiment.name)
    names = sorted({user for pool_users in users.values() for user in pool_users})
    if names:
        output.say(
            f"weights of this run were the start of {list_words(names)}; moved aside it stays on "
            "disk, and names lead to the new run",
            err=False,
        )
