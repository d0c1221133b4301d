"""Settings of modules: checked with the experiment's own table laid on top, and taken over."""

from collections.abc import Iterable, Mapping
from functools import partial

import attrs

from pymodules_core.discovery.scan.static_reader import find_settings_line
from pymodules_core.errors import PymodulesError
from pymodules_core.experiment import Experiment
from pymodules_core.settings import ModuleSettings, structure_module_settings
from pymodules_core.settings.structure import no_line
from pymodules_core.specs import FileOrigin, ModuleSpec

# How several processes share a module.
_SHARING = ("parallel", "sharded", "forward_methods")


def check_spec_settings(
    raw: object, spec: ModuleSpec, experiment: Experiment | None
) -> ModuleSettings:
    """Return a module's settings; what is wrong names the line of the file that says it.

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
        return structure_module_settings(
            raw,
            file=file,
            line_of=partial(find_settings_line, file) if file else no_line,
            overlay=overlay,
            overlay_root=root,
        )
    except PymodulesError as error:
        if experiment and (error.key or "").startswith(root):
            experiment.locate(error)
        elif file is None:
            error.what = f"module {spec.name!r} of {spec.origin}: {error.what}"
        raise


def share_like_sources(
    settings: Mapping[str, ModuleSettings], specs: Iterable[ModuleSpec]
) -> dict[str, ModuleSettings]:
    """Let each module that follows another be shared among processes as that one is.

    Args:
        settings: Module name to its settings.
        specs: The modules.

    Returns:
        The settings, with what the source's say taken over where a follower's say nothing.
    """
    default = ModuleSettings()
    taken = {
        spec.name: {
            key: getattr(settings[spec.follows], key)
            for key in _SHARING
            if getattr(settings[spec.name], key) == getattr(default, key)
        }
        for spec in specs
        if spec.follows in settings
    }
    return {name: attrs.evolve(one, **taken.get(name, {})) for name, one in settings.items()}
