"""What a plugin gets of its table, and plugins that are classes."""

from pathlib import Path

import attrs
import pytest
from support import GOOD_PLUGIN, record_of, write_experiment

from pymodules_core import Experiment
from pymodules_core.discovery import PluginManager
from pymodules_core.errors import SettingsError

SIZES = """
import attrs
from typing import Annotated
from pymodules_core import ModuleSpec, hookimpl
from pymodules_core.settings import Range

@attrs.frozen
class Settings:
    sizes: tuple[str, ...] = ("small",)
    width: Annotated[int, Range(minimum=1)] = 8

@hookimpl
def provide_module(context):
    for size in context.settings.sizes:
        yield ModuleSpec(name=f"net_{size}", factory="torch.nn:Identity")
"""
COUNTER = """
import attrs
from pymodules_core import ModuleSpec, hookimpl

class Counter:
    @attrs.frozen
    class Settings:
        name: str = "counted"

    made = 0

    def __init__(self, settings):
        self.settings = settings
        self.calls = 0
        Counter.made += 1

    @hookimpl
    def provide_module(self, context):
        self.calls += 1
        assert context.settings is self.settings
        return ModuleSpec(name=f"{self.settings.name}_{self.calls}", factory="torch.nn:Identity")
"""
FREE = """
from pymodules_core import ModuleSpec, hookimpl

@hookimpl
def provide_module(context):
    return ModuleSpec(name=context.settings.get("name", "free"), factory="torch.nn:Identity")
"""


def discover(home: Path, toml: str) -> PluginManager:
    path = write_experiment(home, modules={"_none": ""}, toml=toml)
    return PluginManager.for_experiment(Experiment.open(path))


def names(plugins: PluginManager) -> list[str]:
    return [spec.name for spec in plugins.provided_specs()]


def test_a_table_becomes_the_plugins_settings(install_distribution, home):
    install_distribution("acme-sizes", SIZES)

    plugins = discover(home, '[plugins.settings.acme-sizes]\nsizes = ["big", "tiny"]\n')

    assert names(plugins) == ["net_big", "net_tiny"]
    assert attrs.asdict(record_of(plugins, "acme-sizes").settings)["width"] == 8


@pytest.mark.parametrize("key", ["plugin", "acme_sizes", '"acme-sizes:plugin"'])
def test_a_table_goes_by_any_name_of_the_plugin(install_distribution, home, key):
    install_distribution("acme-sizes", SIZES)

    plugins = discover(home, f'[plugins.settings.{key}]\nsizes = ["big"]\n')

    assert names(plugins) == ["net_big"]


def test_without_a_table_settings_have_their_defaults(install_distribution, home):
    install_distribution("acme-sizes", SIZES)

    assert names(discover(home, "")) == ["net_small"]
    assert names(PluginManager()) == ["net_small"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "width = 'wide'",
            "plugins.settings.plugin.width: expected int, found str 'wide'\n"
            "  fix: write a whole number, unquoted",
        ),
        (
            "width = 0",
            "plugins.settings.plugin.width: expected int at least 1, found int 0",
        ),
        (
            "widht = 3",
            "plugins.settings.plugin.widht: unknown key\n"
            "  closest match: width\n"
            "  fix: write 'width' or remove 'widht'",
        ),
    ],
    ids=["type", "range", "unknown"],
)
def test_a_table_that_does_not_fit_is_the_experiments_mistake(
    install_distribution, home, line, message
):
    install_distribution("acme-good", GOOD_PLUGIN)
    install_distribution("acme-sizes", SIZES)

    with pytest.raises(SettingsError) as caught:
        discover(home, f"[plugins.settings.plugin]\n{line}\n")

    assert str(caught.value) == f"data/experiments/tiny/experiment.toml:2: {message}"


def test_two_tables_of_one_plugin_are_refused(install_distribution, home):
    install_distribution("acme-sizes", SIZES)

    with pytest.raises(SettingsError) as caught:
        discover(home, "[plugins.settings.plugin]\nwidth = 1\n[plugins.settings.acme-sizes]\n")

    assert str(caught.value) == (
        "data/experiments/tiny/experiment.toml:3: plugins.settings.plugin, "
        "plugins.settings.acme-sizes are tables of one plugin, acme-sizes:plugin\n"
        "  fix: write one of them"
    )


def test_a_plugin_without_the_class_gets_the_table_as_it_is(install_distribution, home):
    install_distribution("acme-free", FREE)

    assert names(discover(home, '[plugins.settings.plugin]\nname = "other"\n')) == ["other"]
    assert names(PluginManager()) == ["free"]


def test_a_class_is_one_instance_a_discovery(install_distribution, home):
    package = install_distribution("acme-counter", COUNTER, target="acme_counter:Counter")
    del package

    first, second = discover(home, '[plugins.settings.plugin]\nname = "a"\n'), PluginManager()

    assert names(first) == ["a_1"]
    assert names(first) == ["a_2"]
    assert names(second) == ["counted_1"]


def test_a_class_need_not_take_settings(install_distribution):
    source = COUNTER.replace("(self, settings)", "(self)").replace(
        "self.settings = settings", "self.settings = self.Settings()"
    )
    install_distribution(
        "acme-counter", source.replace("assert", "#"), target="acme_counter:Counter"
    )

    assert names(PluginManager()) == ["counted_1"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "@attrs.frozen\nclass Settings",
            "class Settings",
            "settings failed: Settings is type <class 'acme_sizes.Settings'>, expected an attrs "
            "class or dataclass\n  fix: write @attrs.frozen above class Settings",
        ),
        (
            'sizes: tuple[str, ...] = ("small",)',
            "sizes: tuple[str, ...]",
            "settings failed: Settings cannot be made without a table: "
            "plugins.settings.plugin.sizes: is missing\n  fix: give each of its fields a default",
        ),
        (
            "width: Annotated[int, Range(minimum=1)] = 8",
            "width: 'Missing' = 8",
            "settings failed: Settings cannot be made: ",
        ),
    ],
    ids=["plain class", "no default", "annotation"],
)
def test_a_class_that_settings_cannot_be_made_of_drops_the_plugin(
    install_distribution, caplog, old, new, message
):
    install_distribution("acme-sizes", SIZES.replace(old, new))
    install_distribution("acme-good", GOOD_PLUGIN)

    plugins = PluginManager()

    assert names(plugins) == ["good"]
    (told,) = caplog.messages
    assert told.startswith(f"plugin acme-sizes 1.0 (plugin): {message}")


def test_an_instance_that_cannot_be_made_drops_the_plugin(install_distribution, caplog):
    install_distribution("acme-good", GOOD_PLUGIN)
    source = COUNTER.replace("self.calls = 0", "self.calls = 1 / 0")
    install_distribution("acme-counter", source, target="acme_counter:Counter")

    plugins = PluginManager()

    assert names(plugins) == ["good"]
    assert caplog.messages == [
        "plugin acme-counter 1.0 (plugin): instance failed: ZeroDivisionError: division by zero\n"
        '  fix: pip install -U acme-counter, or switch it off: [plugins] disable = ["acme-counter"]'
    ]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("import os; os.chdir('/')", "working directory"),
        ("import torch; torch.set_default_dtype(torch.float64)", "default dtype"),
    ],
    ids=["cwd", "dtype"],
)
@pytest.mark.parametrize("where", ["import", "hook"])
def test_what_a_plugin_changes_around_it_is_reported_and_put_back(
    install_distribution, caplog, change, name, where
):
    indented = f"\n    {change}"
    source = (
        f"{change}\n{GOOD_PLUGIN}"
        if where == "import"
        else GOOD_PLUGIN.replace("(context):", f"(context):{indented}")
    )
    install_distribution("acme-good", source)

    plugins = PluginManager()
    assert names(plugins) == ["good"]

    culprit = "importing" if where == "import" else "provide_module of"
    (told,) = caplog.messages
    assert told.startswith(f"{culprit} plugin acme-good 1.0 (plugin) changed the {name}")
    assert told.endswith("it was put back")
    caplog.clear()
    PluginManager().provided_specs()
    assert len(caplog.messages) == (1 if where == "hook" else 0)
