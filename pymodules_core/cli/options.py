"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class FullPath(click.Path):
    """A path; an empty text is none, though Python takes it for the working directory."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Refuse what a variable of the shell gives that is not set."""
        if value == "":
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)


def experiment_argument(function: F) -> F:
    """Add ``EXP``."""
    return click.argument("exp", metavar="EXP")(function)


def data_home_option(function: F) -> F:
    """Add ``--data-home``."""
    return click.option(
        "--data-home",
        type=FullPath(path_type=Path, file_okay=False),
        help="Folder of experiments/ and module_ckps/; else PYMODULES_DATA_HOME or ./data.",
    )(function)


def plugins_option(function: F) -> F:
    """Add ``--no-plugins``."""
    return click.option(
        "--no-plugins",
        is_flag=True,
        callback=_tell_children,
        help="Load no installed plugin, only the experiment's files.",
    )(function)


def debug_option(function: F) -> F:
    """Add ``--debug``; ``main`` reads it, because errors end there."""
    return click.option(
        "--debug", is_flag=True, expose_value=False, help="Show full tracebacks and what is done."
    )(function)


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(
        function
    )


def overrides_option(function: F) -> F:
    """Add ``-s key=value``."""
    return click.option(
        "-s",
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a key of experiment.toml: -s train.epochs=3. May repeat.",
    )(function)


def _tell_children(_: click.Context, __: click.Parameter, value: bool) -> bool:
    """Let workers and ranks, which this process starts, see the plugins that it sees."""
    if value:
        from pymodules_core.discovery.plugins.records import DISABLE_VARIABLE

        os.environ[DISABLE_VARIABLE] = "*"
    return value


def parse_overrides(settings: tuple[str, ...], **options: object) -> dict[str, Any]:
    """Join ``-s`` with the options that stand for a key, such as ``--epochs``.

    Args:
        settings: The texts of ``-s``.
        options: Key with ``__`` for ``.`` to value; None where the option is not given.
    """
    from pymodules_core.settings.toml_text import parse_override

    overrides = dict(parse_override(text) for text in settings)
    given = {k.replace("__", "."): v for k, v in options.items() if v is not None}
    return overrides | given
