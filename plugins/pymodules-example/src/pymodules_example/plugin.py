"""The hook of this package. It imports no torch, so that listing modules stays fast."""

from pymodules_core import ModuleSpec, hookimpl
from pymodules_core.specs import DiscoveryContext


@hookimpl
def provide_module(context: DiscoveryContext) -> ModuleSpec:
    """Provide the edge detector; its factory is a dotted name, imported when the pool is built."""
    del context
    return ModuleSpec(
        name="example_edges",
        factory="pymodules_example.edges:SobelEdges",
        settings={"frozen": True},
        description="Sobel edge strength of an image, for perceptual losses.",
    )
