"""The command itself: which subcommands there are, and how an error leaves the program.

Help comes from a table, so that ``pymodules --help`` imports no command.
"""

import io
import logging
import os
import sys
from contextlib import suppress

import click

from pymodules_core.cli.exit_watchdog import end_in_time
from pymodules_core.cli.lazy_group import LazyGroup
from pymodules_core.cli.messages import WarningHandler, report_error
from pymodules_core.errors import PymodulesError
from pymodules_core.processes.environment import RankInfo, rank_info

_COMMANDS = {
    "new": "Write a new experiment from a template.",
    "new-plugin": "Write a new package that provides a module.",
    "list": "Show the modules of an experiment without executing them.",
    "plugins": "Show installed plugins, what they do, and what failed.",
    "check": "Dry-run an experiment, or test a plugin; write nothing.",
    "train": "Train an experiment.",
    "eval": "Evaluate a checkpoint pool of a run.",
    "status": "Show the progress of all runs in a data home.",
    "compare": "Show settings and results of experiments side by side.",
    "plot": "Write a page with the charts of one or more experiments.",
    "ckpt": "Inspect, compare, export, repair and prune checkpoints.",
}


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value:
        return
    from pymodules_core.installed import own_version

    click.echo(f"pymodules {own_version()}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    package="pymodules_core.cli",
    table=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Train several torch modules together: from files, from packages, in one pool.

    EXP is an experiment's name in the data home (./data, PYMODULES_DATA_HOME or --data-home), or
    the path of its folder.
    """


def main() -> None:
    """Run the command and exit with its code.

    0; 1 the run failed; 2 wrong usage or an invalid experiment; 128 + a signal that interrupted it.
    """
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and out.errors == "strict":
        out.reconfigure(errors="backslashreplace")  # a file's name may be in no encoding
    code = run(sys.argv[1:])
    if code and _place().size > 1:
        # Threads of gloo and NCCL wait for processes that are gone: Python would abort or hang.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    end_in_time(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command and return its exit code; what went wrong is on standard error."""
    is_debug = "--debug" in arguments
    place = _place()
    # Of several processes each would say the same.
    handler = WarningHandler() if is_debug or place.is_first else logging.NullHandler()
    logger = logging.getLogger("pymodules_core")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if is_debug else logging.WARNING)
    try:
        code = cli.main(arguments, prog_name="pymodules", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  all are reported
        return report_error(error, place, is_debug=is_debug)
    finally:
        logger.removeHandler(handler)


def _place() -> RankInfo:
    """Return the place of this process among several; the first where its environment is wrong."""
    try:
        return rank_info()
    except PymodulesError:  # the command that needs it says
        return RankInfo()
