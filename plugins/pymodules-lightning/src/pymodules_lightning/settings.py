"""``[plugins.settings.lightning]``: which networks of LightningModules join the pool."""

from typing import Any

import attrs

from pymodules_core.errors import InvalidNameError, SettingsError
from pymodules_core.plugin_api import check_module_name, check_path_name


@attrs.frozen(kw_only=True)
class NetworkSettings:
    """One network.

    Attributes:
        lightning_module: The class that makes it, ``"package.module:Class"``.
        attribute: Dotted path of the network in an instance of the class.
        arguments: Keyword arguments of the class.
        frozen: As the module setting of that name.
        ckp_name: File in ``<data home>/module_ckps/`` with the weights of the whole
            LightningModule; without one, weights are those that the class makes.

    Raises:
        SettingsError: ``lightning_module`` or ``attribute`` is not a dotted name.
    """

    lightning_module: str
    attribute: str
    arguments: dict[str, Any] = attrs.field(factory=dict)
    frozen: bool = False
    ckp_name: str | None = None

    def __attrs_post_init__(self) -> None:
        package, _, name = self.lightning_module.partition(":")
        if not all(part.isidentifier() for part in [*package.split("."), *name.split(".")]):
            raise SettingsError(
                f"{self.lightning_module!r} names no class",
                key="lightning_module",
                found=self.lightning_module,
                fix='write "package.module:Class"',
            )
        if not all(self.attribute.split(".")):
            raise SettingsError(
                f"{self.attribute!r} names no submodule",
                key="attribute",
                found=self.attribute,
                fix='write the path of one network, such as "encoder" or "model.encoder"; the '
                "whole LightningModule is not taken",
            )


@attrs.frozen(kw_only=True)
class Settings:
    """``[plugins.settings.lightning]``.

    Attributes:
        modules: Module name to its network.

    Raises:
        SettingsError: A name is none for a module, or a file's leads out of ``module_ckps/``.
    """

    modules: dict[str, NetworkSettings] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for name, network in self.modules.items():
            key = f"modules.{name}"
            try:
                check_module_name(name)
                if network.ckp_name is not None:
                    key += ".ckp_name"
                    check_path_name(network.ckp_name, kind="ckp_name")
            except InvalidNameError as error:
                raise SettingsError(
                    error.what, key=key, found=error.found, fix=error.fix
                ) from error
