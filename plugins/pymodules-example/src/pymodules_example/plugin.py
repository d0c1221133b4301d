"""The hook of this package. It imports no torch, so that listing modules stays fast."""

from typing import Literal

import attrs

from pymodules_core import DiscoveryContext, ModuleSpec, hookimpl


@attrs.frozen
class Settings:
    """``[plugins.settings.example]``; every field has a default.

    Attributes:
        operator: How a gradient is measured: ``sobel``, or ``scharr``, which depends less on the
            direction of an edge.
    """

    operator: Literal["sobel", "scharr"] = "sobel"


@hookimpl
def provide_module(context: DiscoveryContext) -> ModuleSpec:
    """Provide the edge detector; its factory is a dotted name, imported when the pool is built."""
    return ModuleSpec(
        name="example_edges",
        factory="pymodules_example.edges:EdgeStrength",
        arguments={"operator": context.settings.operator},
        settings={"frozen": True},
        description="Edge strength of an image, for perceptual losses.",
    )
