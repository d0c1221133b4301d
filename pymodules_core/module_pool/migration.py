"""Weights of an older version of a plugin: the plugin itself brings them into today's layout."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch

from pymodules_core.discovery.isolation.global_state import guard_global_state
from pymodules_core.discovery.plugins.implementations import HookImplementation
from pymodules_core.errors import PluginError
from pymodules_core.rng import random_stream
from pymodules_core.specs import FileOrigin, ModuleSpec, Origin

if TYPE_CHECKING:
    from pymodules_core.discovery import PluginManager

HOOK_NAME = "migrate_state"


@attrs.frozen(kw_only=True)
class Migration:
    """How weights came into today's layout.

    Attributes:
        from_version: The version they had.
        to_version: The version of today's layout.
        kept: Key today to key before, of what has the values it had.
    """

    from_version: int
    to_version: int
    kept: Mapping[str, str]


@attrs.frozen(kw_only=True)
class Migrator:
    """Calls ``migrate_state`` of the plugin that provides a module.

    Attributes:
        module_name: The module.
        origin: Its provider.
        implementation: The provider's hook; None where it has none.
        seed: The run's seed.
    """

    module_name: str
    origin: Origin
    implementation: HookImplementation | None
    seed: int

    @property
    def has_hook(self) -> bool:
        """Whether the provider implements the hook."""
        return self.implementation is not None

    def __call__(
        self, state: dict[str, Any], *, from_version: int, to_version: int
    ) -> dict[str, Any]:
        """Return a state in today's layout.

        Args:
            state: The provider's to change.
            from_version: Its version.
            to_version: That of today's layout.

        Raises:
            PluginError: The provider has no hook, it raises, or it gives no state.
        """
        if self.implementation is None:
            raise PluginError(f"plugin {self.origin} has no {HOOK_NAME}", found=self.origin)
        arguments = {
            "module_name": self.module_name,
            "state": state,
            "from_version": from_version,
            "to_version": to_version,
        }
        hook = f"{HOOK_NAME} of plugin {self.origin}"
        where = f"module {self.module_name!r}, version {from_version} to {to_version}"
        try:
            with (
                guard_global_state(hook),
                random_stream(self.seed, HOOK_NAME, self.module_name),
                torch.no_grad(),
            ):
                result = self.implementation(arguments)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{hook} raises {type(error).__name__}: {error} ({where})",
                found=self.implementation.record.name,
                fix=f"report it to {self.origin.provider}; no module was changed",
            ) from error
        if isinstance(result, Mapping) and all(isinstance(key, str) for key in result):
            return dict(result)
        found = "None" if result is None else type(result).__name__
        if isinstance(result, Mapping):
            found = f"a key of type {next(type(k).__name__ for k in result if type(k) is not str)}"
        raise PluginError(
            f"{hook} gives {found}, expected a dict of keys and tensors ({where})",
            found=result,
            fix="return the state" if result is None else f"report it to {self.origin.provider}",
        )


def find_migrator(spec: ModuleSpec, plugins: "PluginManager", *, seed: int) -> Migrator | None:
    """Return what migrates a module's weights; None for module files, which have no versions.

    Args:
        spec: The module.
        plugins: Its provider among them.
        seed: The run's seed.
    """
    if spec.origin is None or isinstance(spec.origin, FileOrigin):
        return None
    own = [i for i in plugins.implementations(HOOK_NAME) if i.record.origin == spec.origin]
    hook = own[0] if own else None
    return Migrator(module_name=spec.name, origin=spec.origin, implementation=hook, seed=seed)
