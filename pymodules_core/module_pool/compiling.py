"""Compiles modules in place, where their settings ask for it."""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import nn

from pymodules_core.errors import SettingsError
from pymodules_core.module_pool.pool import ModulePool
from pymodules_core.module_pool.setting_location import locate_setting
from pymodules_core.processes.dtensor import is_sharded
from pymodules_core.settings import CompileSettings


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
            raise locate_setting(
                pool,
                name,
                "compile",
                SettingsError(
                    f"module {name!r} cannot be compiled: {error}",
                    key=f"modules.settings.{name}.compile",
                    found=attrs.asdict(options),
                    fix='"compile": True takes what torch takes by default',
                ),
            ) from error


def _compile(module: nn.Module, options: CompileSettings) -> None:
    inner = [part for part in module.modules() if part is not module]
    if any(map(is_sharded, inner)) or type(module).forward is nn.Module.forward:
        # FSDP2 gathers in hooks around each part that it shards, and the compiler stops at them. It
        # would continue within a forward that is the user's, but within none of torch's own.
        for child in module.children():
            _compile(child, options)
    elif is_sharded(module):
        module.forward = _compiled(module.forward, options)
    else:
        module._compiled_call_impl = _compiled(module._call_impl, options)


def _compiled(call: Callable[..., Any], options: CompileSettings) -> Callable[..., Any]:
    # Looked up here: it takes 1.7 s, and most runs compile nothing.
    from torch._dynamo.external_utils import wrap_inline  # noqa: PLC0415

    # As `module.compile()` does, which leaves torch's own classes, `nn.Sequential` among them, as
    # they are: the compiler passes their frames over. `torch.compile(module)` wraps them like this.
    inline = wrap_inline(call)
    # It compiles one piece of code eight times at most, and this one is that of all modules.
    inline.__code__ = inline.__code__.replace()
    compiled: Callable[..., Any] = torch.compile(inline, **attrs.asdict(options))
    return compiled
