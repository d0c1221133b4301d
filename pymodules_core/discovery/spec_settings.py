"""Checks the settings of a module with the experiment's own table for it laid on top."""

from functools import partial

from pymodules_core.discovery.static_reader import find_settings_line
from pymodules_core.errors import PymodulesError
from pymodules_core.experiment import Experiment
from pymodules_core.settings import ModuleSettings, structure_module_settings
from pymodules_core.specs import FileOrigin, ModuleSpec


def check_spec_settings(
    raw: object, spec: ModuleSpec, experiment: Experiment | None
) -> ModuleSettings:
    """Give a module's settings; what is wrong names the line of the file that says it.

    Args:
        raw: The ``settings`` as its provider wrote them.
        spec: Whose they are.
        experiment: Gives ``[modules.settings]``; None outside one.

    Raises:
        SettingsError: They are not valid.
        InvalidNameError: A name in them is not allowed.
    """
    file = spec.origin.file if isinstance(spec.origin, FileOrigin) else None
    root = f"modules.settings.{spec.name}"
    overlay = experiment.settings.modules.settings.get(spec.name) if experiment else None
    try:
        if file is None:
            return structure_module_settings(raw, overlay=overlay, overlay_root=root)
        return structure_module_settings(
            raw,
            file=file,
            line_of=partial(find_settings_line, file),
            overlay=overlay,
            overlay_root=root,
        )
    except PymodulesError as error:
        if experiment and (error.key or "").startswith(root):
            experiment.locate(error)
        elif file is None:
            error.what = f"module {spec.name!r} of {spec.origin}: {error.what}"
        raise
