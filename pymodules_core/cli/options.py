"""Options that several commands share: ``@options.data_home`` adds ``--data-home``."""

import os
from pathlib import Path
from typing import Any

import click


class FullPath(click.Path):
    """A path; an empty text is none, though Python takes it for the working directory."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Refuse what a variable of the shell gives that is not set."""
        if value == "":
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)


def _set_for_children(_: click.Context, __: click.Parameter, is_off: bool) -> bool:
    """Return whether plugins load; workers and ranks, which this process starts, see the same."""
    if is_off:
        from pymodules_core.discovery.plugins.records import DISABLE_VARIABLE

        os.environ[DISABLE_VARIABLE] = "*"
    return not is_off


experiment = click.argument("exp", metavar="EXP")
data_home = click.option(
    "--data-home",
    type=FullPath(path_type=Path, file_okay=False),
    help="Folder of experiments/ and module_ckps/; else PYMODULES_DATA_HOME or ./data.",
)
no_plugins = click.option(
    "--no-plugins",
    "load_installed",
    is_flag=True,
    callback=_set_for_children,
    help="Load no installed plugin, only the experiment's files.",
)
# `main` reads it, because errors end there.
debug = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show full tracebacks and what is done."
)
json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
overrides = click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of experiment.toml: -s train.epochs=3. May repeat.",
)


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
