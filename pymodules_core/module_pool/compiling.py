"""Compiles modules in place, where their settings ask for it."""

import attrs
import torch
from torch import nn

from pymodules_core.discovery.static_reader import find_settings_line
from pymodules_core.errors import SettingsError
from pymodules_core.module_pool.pool import ModulePool, PoolEntry
from pymodules_core.settings import CompileSettings
from pymodules_core.specs import FileOrigin


def compile_modules(pool: ModulePool) -> None:
    """Let ``torch.compile`` compile the ``forward`` of modules whose settings say so.

    In place: the module stays what it is, and its keys in checkpoints have no prefix. Compilation
    itself happens at the first call.

    Raises:
        SettingsError: torch refuses the settings.
    """
    for name, entry in pool.entries.items():
        wanted = entry.settings.compile
        if wanted is False:
            continue
        options = CompileSettings() if wanted is True else wanted
        try:
            _compile(entry.module, options)
        except (RuntimeError, ValueError, TypeError) as error:
            raise _located(
                pool,
                entry,
                SettingsError(
                    f"module {name!r} cannot be compiled: {error}",
                    key=f"modules.settings.{name}.compile",
                    found=attrs.asdict(options),
                    fix='"compile": True takes what torch takes by default',
                ),
            ) from error


def _compile(module: nn.Module, options: CompileSettings) -> None:
    # Looked up here: it takes 1.7 s, and most runs compile nothing.
    from torch._dynamo.external_utils import wrap_inline  # noqa: PLC0415

    # As `module.compile()` does, which leaves torch's own classes, `nn.Sequential` among them, as
    # they are: the compiler passes their frames over. `torch.compile(module)` wraps them like this.
    call = wrap_inline(module._call_impl)
    module._compiled_call_impl = torch.compile(call, **attrs.asdict(options))


def _located(pool: ModulePool, entry: PoolEntry, error: SettingsError) -> SettingsError:
    """Say where the setting was written: ``experiment.toml`` wins over the module file."""
    experiment = pool.experiment
    if experiment and "compile" in experiment.settings.modules.settings.get(entry.name, {}):
        return experiment.locate(error)
    if isinstance(entry.origin, FileOrigin):
        error.file = entry.origin.file
        error.line = find_settings_line(entry.origin.file, ("compile",))
    return error
