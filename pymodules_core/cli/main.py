"""The command itself: which subcommands there are, and how an error leaves the program.

Help comes from a table, so that ``pymodules --help`` imports no command.
"""

import importlib
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

import click

from pymodules_core.errors import PymodulesError, display_path

INTERRUPTED_EXIT_CODE = 130


class _Command(NamedTuple):
    """Where a command lives and what help says of it."""

    module: str
    summary: str


_COMMANDS = {
    "new": _Command("new", "Write a new experiment from a template."),
    "list": _Command("list_modules", "Show the modules of an experiment, executing none."),
    "plugins": _Command("plugins", "Show installed plugins, what they do, and what failed."),
    "check": _Command("check", "Try everything a run needs, and write nothing."),
    "train": _Command("train", "Train an experiment."),
    "status": _Command("status", "Show how far the runs of a data home are."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the commands in the order a newcomer needs them."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"pymodules_core.cli.{_COMMANDS[cmd_name].module}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the closest command for one that does not exist."""
        from pymodules_core.errors import closest_match

        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = closest_match(args[0], _COMMANDS)
            hint = f" Did you mean {near!r}?" if near else ""
            raise click.UsageError(
                f"no command {args[0]!r}; there are: {', '.join(_COMMANDS)}.{hint}", ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in _COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value:
        return
    from pymodules_core.versions import own_version

    click.echo(f"pymodules {own_version()}")
    ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
    except BrokenPipeError:
        # `pymodules list | head`: nobody reads on, and the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
