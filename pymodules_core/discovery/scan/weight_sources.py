"""Which experiments an experiment takes its initial weights from, by its files alone."""

from pathlib import Path

from pymodules_core.discovery.scan.static_reader import read_module_file
from pymodules_core.errors import PymodulesError
from pymodules_core.experiment import Experiment
from pymodules_core.names import is_path_name

_FROM_EXP = "load_weights_from_exp"


def find_source_experiments(folder: Path) -> list[str]:
    """Name the experiments whose weights an experiment's modules start from; executes nothing.

    Args:
        folder: The experiment's folder, which need not exist.

    Returns:
        Names in the order of the modules', those that could be no name left out.
    """
    overlays = _read_overlays(folder)
    written = {
        file.stem: read_module_file(file).settings or {}
        for file in sorted((folder / "pymodules" / "modules").glob("[!.]*.py"))
    }
    names = []
    for module_name in sorted({*written, *overlays}):
        overlay = overlays.get(module_name, {})
        # A source of weights in experiment.toml replaces the module's own, whichever kind.
        replaces = "load_weights_from_ckp" in overlay or _FROM_EXP in overlay
        table = (overlay if replaces else written.get(module_name, {})).get(_FROM_EXP)
        name = table.get("exp_name") if isinstance(table, dict) else None
        if isinstance(name, str) and is_path_name(name):
            names.append(name)
    return list(dict.fromkeys(names))


def _read_overlays(folder: Path) -> dict[str, dict[str, object]]:
    try:
        return Experiment.open(folder).settings.modules.settings
    except PymodulesError:  # a broken one is reported when it is trained
        return {}
