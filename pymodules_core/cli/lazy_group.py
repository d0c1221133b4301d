"""A group of commands that imports a command when it is called, not before."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from pymodules_core.errors import closest_match


class LazyGroup(click.Group):
    """A group whose help comes from a table.

    Args:
        args: What ``click.Group`` takes.
        package: The package of the commands' modules, which are called like them and define
            ``command``.
        table: Command name to what help says of it, in the order a newcomer needs them.
        more: What ``click.Group`` takes.
    """

    def __init__(self, *args: Any, package: str, table: Mapping[str, str], **more: Any) -> None:
        super().__init__(*args, **more)
        self._package = package
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order a newcomer needs them."""
        del ctx
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in self._table:
            return None
        module = importlib.import_module(f"{self._package}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; one whose output nobody reads on, as by ``head``, did its work."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Here, because click would exit with 1. The interpreter must not complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the closest command for one that does not exist."""
        if args and args[0] not in self._table and not args[0].startswith("-"):
            near = closest_match(args[0], self._table)
            hint = f" Did you mean {near!r}?" if near else ""
            raise click.UsageError(
                f"no command {args[0]!r}; there are: {', '.join(self._table)}.{hint}", ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([*self._table.items()])
