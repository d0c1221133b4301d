"""The fixtures for tests of plugins: what they give, and what they do not let pass."""

import pytest

from pymodules_core import ModuleSpec, hookimpl
from pymodules_core.errors import PluginError


class Provides:
    @hookimpl
    def provide_module(self):
        return ModuleSpec(name="extra", factory="torch.nn:Identity", settings={"frozen": True})


class Misspelt:
    @hookimpl
    def train_step_finishd(self, run):
        pass


def test_a_manager_holds_what_is_given_and_nothing_that_is_installed(
    make_plugin_manager, install_distribution
):
    install_distribution("acme-broken", "raise ValueError('boom')")

    plugins = make_plugin_manager({"mine": Provides})

    assert [record.name for record in plugins.records] == [
        "pymodules-core:directory_scanner",
        "test:mine",
    ]
    assert [spec.name for spec in plugins.provided_specs()] == ["extra"]


def test_settings_of_no_plugin_are_a_mistake_in_the_test(make_plugin_manager, make_experiment):
    with pytest.raises(ValueError, match="are of no plugin that is given"):
        make_plugin_manager({"mine": Provides}, settings={"mien": {}})
    with pytest.raises(ValueError, match="give one of the two"):
        make_plugin_manager(experiment=make_experiment(), settings={})


def test_a_pool_has_files_and_plugins(make_experiment, make_pool):
    pool = make_pool(make_experiment(), {"mine": Provides})

    assert list(pool) == ["extra", "net"]
    assert pool.is_frozen("extra")


def test_steps_stop_where_they_are_asked_to_and_stay_there(make_experiment, train_steps):
    path = make_experiment()

    steps = [train_steps(path, count, plugins={}).run.step for count in (1, 1, 4, 2, 4)]

    assert steps == [1, 1, 4, 4, 4]
    assert train_steps(path, plugins={}).run.step == 6
    assert (path / "data" / "module_ckps" / "best" / "net.pt").is_file()


def test_a_plugin_that_is_dropped_fails_the_test_that_trains_with_it(make_experiment, train_steps):
    with pytest.raises(PluginError) as caught:
        train_steps(make_experiment(), 1, plugins={"mine": Misspelt})

    assert caught.value.what.startswith("plugin mine: hooks failed: no hook is called")
    assert caught.value.fix == "rename it to 'train_step_finished'"
