"""Hook of those who provide modules."""

from collections.abc import Iterable

from pymodules_core.hookspecs.markers import hookspec
from pymodules_core.specs import DiscoveryContext, ModuleSpec


class ModuleHooks:
    """Implemented by packages that bring modules, and by the built-in directory scanner."""

    @hookspec
    def provide_module(self, context: DiscoveryContext) -> ModuleSpec | Iterable[ModuleSpec] | None:
        """Give the modules this plugin brings.

        Called once whenever a pool is discovered, and by ``pymodules list``. Keep it free of heavy
        imports: name the factory as text, and torch is imported only when the module is built.
        A failure drops this plugin, names it and leaves the others alone; the run stops only if it
        needs what is missing.

        Args:
            context: The experiment's folder, the data home, and this plugin's own settings.

        Returns:
            One spec, several, or None. Iterables are read at once.

        A whole plugin, whose package declares
        ``[project.entry-points.pymodules]  encoders = "acme_encoders"``::

            from pymodules_core import ModuleSpec, hookimpl

            @hookimpl
            def provide_module(context):
                return ModuleSpec(
                    name="acme_encoder",
                    factory="acme_encoders.nets:build",
                    settings={"frozen": True},
                )
        """
