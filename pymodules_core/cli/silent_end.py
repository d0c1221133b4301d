"""Lets no code end a command as if all were done."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import click

from pymodules_core.errors import TrainingError


@contextmanager
def refuse_silent_end() -> Iterator[None]:
    """Let ``os._exit(0)`` end the command with exit code 1 and a word of who called it.

    Nothing can catch such an end: a script around the command would take it for a success, although
    no run is finished. Any other code is a failure for whoever reads it, and stays as it is.
    """
    end, process = os._exit, os.getpid()

    def end_as_failed(status: int) -> NoReturn:
        # Children that multiprocessing forked end like this.
        if status == 0 and os.getpid() == process:
            caller = sys._getframe(1)
            error = TrainingError(
                "ends the command with os._exit(0) before it is done",
                file=Path(caller.f_code.co_filename),
                line=caller.f_lineno,
                fix="remove the call",
            )
            with suppress(OSError):
                click.echo(f"error: {error}", err=True)
                sys.stdout.flush()
            status = error.exit_code
        end(status)

    os._exit = end_as_failed
    try:
        yield
    finally:
        os._exit = end
