"""The hook of this package. It imports neither torch nor Lightning: listing stays fast."""

from collections.abc import Iterator

from pymodules_core import DiscoveryContext, ModuleSpec, hookimpl
from pymodules_lightning.network_source import NetworkSource
from pymodules_lightning.settings import Settings

__all__ = ["Settings", "provide_module"]


@hookimpl
def provide_module(context: DiscoveryContext) -> Iterator[ModuleSpec]:
    """Provide the networks that the experiment's settings name; none without settings."""
    settings: Settings = context.settings
    for name, network in settings.modules.items():
        source = NetworkSource(
            name=name,
            settings=network,
            data_home=context.data_home,
            key=f"{context.settings_key}.modules.{name}",
            locate=context.locate,
        )
        yield ModuleSpec(
            name=name,
            factory="pymodules_lightning.networks:build",
            arguments={**network.arguments, "_source": source},
            settings={"frozen": network.frozen},
            weights=network.ckp_name or "",
            description=f"{network.attribute} of {network.lightning_module}.",
        )
