"""Says whose code a command is about to execute."""

from pymodules_core.cli import output
from pymodules_core.discovery.selection.catalog import executed_files, executed_plugins
from pymodules_core.errors import display_path, list_words
from pymodules_core.experiment import Experiment


def print_trust_notice(experiment: Experiment, *, load_installed: bool, err: bool = False) -> None:
    """Print one line before the first file and the first plugin are executed.

    They have all rights of who runs the command: with ``pymodules list``, which executes no file of
    an experiment, one looks at a stranger's; this line is where that ends.

    Args:
        experiment: The experiment.
        load_installed: Whether installed plugins are loaded.
        err: Print to standard error: standard output is read by a program.
    """
    parts = []
    if files := executed_files(experiment):
        folder = display_path(experiment.task_file.parent)
        parts.append(f"{' and '.join(files)} of {folder}")
    if plugins := executed_plugins(experiment) if load_installed else []:
        parts.append(f"plugins {list_words(plugins)}")
    if parts:
        output.say(f"executing {'; '.join(parts)}", err=err)
