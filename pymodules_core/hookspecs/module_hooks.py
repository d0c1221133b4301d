"""Hooks of those who provide modules, and look after their weights from version to version."""

from collections.abc import Iterable, Mapping
from typing import Any

from pymodules_core.hookspecs.markers import hookspec
from pymodules_core.specs import DiscoveryContext, ModuleSpec


class ModuleHooks:
    """Implemented by packages that bring modules, and by the built-in directory scanner."""

    @hookspec
    def provide_module(self, context: DiscoveryContext) -> ModuleSpec | Iterable[ModuleSpec] | None:
        """Return the modules this plugin brings.

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

    @hookspec
    def migrate_state(
        self, module_name: str, state: dict[str, Any], from_version: int, to_version: int
    ) -> Mapping[str, Any]:
        """Bring weights that an older version of this plugin wrote into the layout of today's.

        Called for modules of this plugin only, once for each module whenever weights of a lower
        ``state_version`` are loaded into it: at a resume, by ``CheckpointManager.load`` and
        ``pymodules eval``, and for initial weights, where it comes after ``rename``. It comes
        before keys and shapes are compared, and never for weights of today's version. Files stay
        as they are, so a frozen module, or a pool that is loaded again, is migrated each time.

        A plugin whose modules all have version 1 leaves it out. Once a version was raised, loading
        older weights without it is an error that names both versions, and so are weights of a
        higher version than the plugin's. Weights without a version have version 1, also those that
        other programs wrote: look at the keys where you expect such files.

        What it raises, and a result that is not a mapping with texts as keys, is a ``PluginError``
        with the plugin's name. No module has changed then, nor where the result does not fit the
        module. It draws from a random stream of its own, and no gradient is recorded.

        When a run is resumed, the optimizer keeps its state for parameters whose tensors are given
        back as they came, also under another key. For all others it starts without state.

        Args:
            module_name: The module, as its spec calls it.
            state: Keys to tensors on the CPU and to primitives: a copy, which may be changed and
                given back.
            from_version: The version of ``state``, at least 1; it may be several versions back.
            to_version: The ``state_version`` of the spec, higher than ``from_version``.

        Returns:
            The state in the layout of ``to_version``.

        A whole plugin, in whose second release a layer got its name and in whose third one a
        layer was split in two::

            from pymodules_core import ModuleSpec, hookimpl

            @hookimpl
            def provide_module(context):
                return ModuleSpec(
                    name="acme_encoder", factory="acme_encoders.nets:build", state_version=3
                )

            @hookimpl
            def migrate_state(module_name, state, from_version, to_version):
                if from_version < 2:
                    state["stem.weight"] = state.pop("0.weight")
                if from_version < 3:
                    weight = state.pop("attention.weight")
                    state["query.weight"], state["key.weight"] = weight.chunk(2)
                return state
        """
