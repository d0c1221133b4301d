"""Hook implementations as this host calls them: one by one, with the arguments each wants."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import pluggy

from pymodules_core.discovery.plugins.records import PluginRecord
from pymodules_core.hookspecs import HOOK_FAMILIES
from pymodules_core.specs import ModuleSpec

HOOK_NAMES = tuple(
    name for family in HOOK_FAMILIES for name in vars(family) if not name.startswith("_")
)


@attrs.frozen
class HookImplementation:
    """One plugin's function for one hook.

    Attributes:
        record: Whose it is.
        function: The function, bound where it is a method.
        argument_names: The arguments it wants, a part of the hook's.
    """

    record: PluginRecord
    function: Callable[..., Any]
    argument_names: tuple[str, ...]

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function with those of ``arguments`` it wants."""
        return self.function(*[arguments[name] for name in self.argument_names])


class HookCaller(pluggy.PluginManager):
    """pluggy's manager, which also takes undecorated functions of plugins marked so."""

    def __init__(self, project_name: str) -> None:
        super().__init__(project_name)
        self.undecorated: set[int] = set()

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """Accept a plain function named after a hook where the plugin is marked for it."""
        if id(plugin) not in self.undecorated:
            return super().parse_hookimpl_opts(plugin, name)
        if name not in HOOK_NAMES or not inspect.isroutine(getattr(plugin, name)):
            return None
        return {
            "wrapper": False,
            "hookwrapper": False,
            "optionalhook": False,
            "tryfirst": False,
            "trylast": False,
            "specname": None,
        }


def is_optional(caller: pluggy.HookCaller, plugin: object) -> bool:
    """Return whether a plugin marked its implementation as fine without a specification."""
    return any(i.optionalhook for i in caller.get_hookimpls() if i.plugin is plugin)


def materialise_specs(result: object) -> list[ModuleSpec]:
    """Read what a provider returned, so that a generator that raises late raises here."""
    if result is None:
        return []
    if isinstance(result, ModuleSpec):
        return [result]
    if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
        raise TypeError(_wrong_return(result))
    specs = list(result)
    names = set()
    for spec in specs:
        if not isinstance(spec, ModuleSpec):
            raise TypeError(_wrong_return(spec))
        if spec.name in names:
            raise ValueError(f"provide_module gives module {spec.name!r} twice")
        names.add(spec.name)
    return specs


def _wrong_return(value: object) -> str:
    return (
        "provide_module returned "
        f"{type(value).__module__}.{type(value).__qualname__}, expected ModuleSpec"
    )
