"""The command itself: which subcommands there are, and how an error leaves the program.

Help comes from a table, so that ``pymodules --help`` imports no command.
"""

import logging
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import click

from pymodules_core.cli.lazy_group import LazyCommand, LazyGroup
from pymodules_core.errors import PymodulesError, RunInterruptedError, display_path

INTERRUPTED_EXIT_CODE = 130


_COMMANDS = {
    "new": LazyCommand("new", "Write a new experiment from a template."),
    "new-plugin": LazyCommand("new_plugin", "Write a new package that provides a module."),
    "list": LazyCommand("list_modules", "Show the modules of an experiment, executing none."),
    "plugins": LazyCommand("plugins", "Show installed plugins, what they do, and what failed."),
    "check": LazyCommand("check", "Try everything a run needs, or a plugin; write nothing."),
    "train": LazyCommand("train", "Train an experiment."),
    "eval": LazyCommand("evaluate", "Evaluate a checkpoint pool of a run."),
    "status": LazyCommand("status", "Show how far the runs of a data home are."),
    "compare": LazyCommand("compare", "Show settings and results of experiments side by side."),
    "plot": LazyCommand("plot", "Write a page with the charts of one or more experiments."),
    "ckpt": LazyCommand("ckpt", "Look at checkpoint pools, compare, export, mend and drop them."),
}


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value:
        return
    from pymodules_core.versions import own_version

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
    """Run the command and exit with its code: 0, 1 the run failed, 2 invalid, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command and give its exit code; what went wrong is on standard error."""
    handler = _WarningHandler()
    logger = logging.getLogger("pymodules_core")
    logger.addHandler(handler)
    is_debug = "--debug" in arguments
    logger.setLevel(logging.DEBUG if is_debug else logging.WARNING)
    try:
        code = cli.main(arguments, prog_name="pymodules", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except RunInterruptedError as error:
        with suppress(OSError):  # the terminal may be what is gone
            click.echo(f"{error}", err=True)
        return error.exit_code
    except PymodulesError as error:
        click.echo(f"error: {error}", err=True)
        _echo_user_frames(error, is_debug=is_debug)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED_EXIT_CODE
    except OSError as error:
        # Not writable, a file where a folder belongs: the machine's state, no bug of ours.
        where = f"{display_path(Path(error.filename))}: " if error.filename else ""
        click.echo(
            f"error: {where}{error.strerror or error}\n"
            "  fix: make it writable, or choose another --data-home",
            err=True,
        )
        if is_debug:
            traceback.print_exc()
        return 1
    except Exception:  # noqa: BLE001  the last resort: a bug of ours is said to be one
        traceback.print_exc()
        click.echo(
            "error: this is a bug in pymodules; please report it with the lines above", err=True
        )
        return 1
    finally:
        logger.removeHandler(handler)


class _WarningHandler(logging.Handler):
    """Prints log records of this package as ``warning: ...`` on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # nobody reads it, and a run goes on
            click.echo(f"{record.levelname.lower()}: {record.getMessage()}", err=True)


def _echo_user_frames(error: PymodulesError, *, is_debug: bool) -> None:
    """Show where in the user's own code an error began; everything with ``--debug``."""
    cause = error.__cause__
    if is_debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        return
    if cause is None or isinstance(cause, PymodulesError):
        return
    package = str(Path(__file__).parents[1])
    libraries = (package, sys.prefix, sys.base_prefix, "<frozen")
    frames = [
        frame
        for frame in traceback.extract_tb(cause.__traceback__)
        if not frame.filename.startswith(libraries)
    ]
    if frames:
        click.echo("".join(traceback.format_list(frames)), err=True, nl=False)
        click.echo(f"{type(cause).__name__}: {cause}  (--debug shows every frame)", err=True)
