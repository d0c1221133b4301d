"""Hook implementations as this host calls them: one by one, with the arguments each wants."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import pluggy

from pymodules_core.discovery.plugins.records import PluginRecord
from pymodules_core.hookspecs import HOOK_FAMILIES
from pymodules_core.specs import ModuleSpec

# Hook to the arguments it is called with, without `self`.
HOOK_ARGUMENTS = {
    name: [*inspect.signature(hook).parameters][1:]
    for family in HOOK_FAMILIES
    for name, hook in vars(family).items()
    if not name.startswith("_")
}
HOOK_NAMES = tuple(HOOK_ARGUMENTS)


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
        return {}  # pluggy fills in its defaults


def materialise_specs(result: Any) -> list[ModuleSpec]:
    """Read what a provider returned, so that a generator that raises late raises here."""
    if result is None:
        return []
    is_several = isinstance(result, Iterable) and not isinstance(result, str | bytes | Mapping)
    by_name: dict[str, ModuleSpec] = {}
    for spec in list(result) if is_several else [result]:
        if not isinstance(spec, ModuleSpec):
            kind = f"{type(spec).__module__}.{type(spec).__qualname__}"
            raise TypeError(f"provide_module returned {kind}, expected ModuleSpec")
        if spec.name in by_name:
            raise ValueError(f"provide_module gives module {spec.name!r} twice")
        by_name[spec.name] = spec
    return list(by_name.values())
