"""Settings that a module takes over from the one that it follows."""

import pytest

from pymodules_core import ModuleSettings, ModuleSpec
from pymodules_core.discovery.selection.spec_settings import share_like_sources
from pymodules_core.settings import ParallelSettings

SPECS = [
    ModuleSpec(name="net", factory="torch.nn:Identity"),
    ModuleSpec(name="net_ema", factory="torch.nn:Identity", follows="net"),
]


@pytest.mark.parametrize(
    "source",
    [
        ModuleSettings(parallel="fsdp", sharded=True, forward_methods=("encode",)),
        ModuleSettings(parallel=ParallelSettings(kind="fsdp", blocks=("Block",))),
        ModuleSettings(),
    ],
    ids=["kind", "table", "default"],
)
def test_a_follower_is_shared_among_processes_as_its_source_is(source):
    own = ModuleSettings(mode="eval")

    settings = share_like_sources({"net": source, "net_ema": own}, SPECS)

    assert settings["net"] == source
    follower = settings["net_ema"]
    assert (follower.parallel, follower.sharded) == (source.parallel, source.sharded)
    assert follower.forward_methods == source.forward_methods
    assert (follower.mode, follower.frozen) == ("eval", False)


def test_what_the_settings_of_a_follower_say_wins():
    own = ModuleSettings(parallel="off")

    settings = share_like_sources({"net": ModuleSettings(parallel="fsdp"), "net_ema": own}, SPECS)

    assert settings["net_ema"].parallel == "off"


def test_a_source_that_is_not_there_changes_nothing():
    own = ModuleSettings()

    assert share_like_sources({"net_ema": own}, SPECS[1:]) == {"net_ema": own}
