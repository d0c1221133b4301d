"""Plugins of installed distributions: real ``dist-info`` on disk, with a broken neighbour."""

import sys
from pathlib import Path

import pytest
from support import GOOD_PLUGIN, record_of, start_command, write_experiment

from pymodules_core import Experiment, ModulePool
from pymodules_core.cli.main import run
from pymodules_core.discovery import PluginManager, PluginState
from pymodules_core.discovery.selection.catalog import list_modules
from pymodules_core.errors import PluginError, SettingsError
from pymodules_core.settings import PluginsSettings
from pymodules_core.testing import write_distribution

RAISES = "raise ValueError('boom')\n"
EXITS = "import sys\nsys.exit(0)\n"
MISSPELT = """
from pymodules_core import hookimpl

@hookimpl
def provide_modul(context):
    return None
"""
WRONG_ARGUMENT = """
from pymodules_core import hookimpl

@hookimpl
def provide_module(contxt):
    return None
"""
WRONG_TYPE = """
from pymodules_core import hookimpl

@hookimpl
def provide_module(context):
    return {"good": "a dict"}
"""
LATE = """
from pymodules_core import ModuleSpec, hookimpl

@hookimpl
def provide_module(context):
    yield ModuleSpec(name="early", factory="torch.nn:Identity")
    raise RuntimeError("late")
"""
NEEDY = """
from pymodules_core import hookimpl

class Plugin:
    def __init__(self, settings, host, port=80):
        pass

    @hookimpl
    def provide_module(self, context):
        return None
"""


def test_a_plugin_is_registered_under_its_distribution_and_entry_point(install_distribution):
    install_distribution("acme-good", GOOD_PLUGIN, version="1.2.0", entry_point="edges")

    plugins = PluginManager()
    (spec,) = plugins.provided_specs()

    assert spec.name == "good"
    assert str(spec.origin) == "acme-good 1.2.0 (edges)"
    assert record_of(plugins, "acme-good").modules == ["good"]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            RAISES,
            None,
            "plugin acme-bad 1.0 (plugin): import failed: ValueError: boom\n"
            '  fix: pip install -U acme-bad, or switch it off: [plugins] disable = ["acme-bad"]',
        ),
        (
            EXITS,
            None,
            "plugin acme-bad 1.0 (plugin): import failed: SystemExit: 0\n"
            '  fix: pip install -U acme-bad, or switch it off: [plugins] disable = ["acme-bad"]',
        ),
        (
            "class Stop(BaseException):\n    pass\nraise Stop('now')\n",
            None,
            "plugin acme-bad 1.0 (plugin): import failed: Stop: now\n"
            '  fix: pip install -U acme-bad, or switch it off: [plugins] disable = ["acme-bad"]',
        ),
        (
            GOOD_PLUGIN,
            "acme_gone.deep:plugin",
            "plugin acme-bad 1.0 (plugin): import failed: ModuleNotFoundError: "
            "No module named 'acme_gone'\n"
            "  fix: pip install --force-reinstall acme-bad, "
            'or switch it off: [plugins] disable = ["acme-bad"]',
        ),
        (
            GOOD_PLUGIN,
            "acme_bad:missing",
            "plugin acme-bad 1.0 (plugin): import failed: AttributeError: "
            "module 'acme_bad' has no attribute 'missing'\n"
            '  fix: pip install -U acme-bad, or switch it off: [plugins] disable = ["acme-bad"]',
        ),
        (
            MISSPELT,
            None,
            "plugin acme-bad 1.0 (plugin): hooks failed: no hook is called 'provide_modul'; "
            "hooks are provide_module, migrate_state, train_data, eval_data, optimizers, "
            "schedulers, train_step, eval_step, weights_ready, run_started, train_step_finished, "
            "epoch_finished, image_logged, checkpoint_committed, run_finished, run_failed\n"
            "  fix: rename it to 'provide_module', "
            'or switch it off: [plugins] disable = ["acme-bad"]',
        ),
        (
            WRONG_TYPE,
            None,
            "plugin acme-bad 1.0 (plugin): provide_module failed: TypeError: "
            "provide_module returned builtins.dict, expected ModuleSpec\n"
            '  fix: pip install -U acme-bad, or switch it off: [plugins] disable = ["acme-bad"]',
        ),
        (
            LATE,
            None,
            "plugin acme-bad 1.0 (plugin): provide_module failed: RuntimeError: late\n"
            '  fix: pip install -U acme-bad, or switch it off: [plugins] disable = ["acme-bad"]',
        ),
        (
            NEEDY,
            "acme_bad:Plugin",
            "plugin acme-bad 1.0 (plugin): instance failed: the class Plugin wants host, and gets "
            "settings at most\n"
            "  fix: write def __init__(self, settings), "
            'or switch it off: [plugins] disable = ["acme-bad"]',
        ),
    ],
    ids=[
        "raises",
        "exits",
        "no exception",
        "package gone",
        "no target",
        "misspelt",
        "wrong type",
        "late",
        "needy",
    ],
)
def test_a_broken_plugin_is_named_once_and_hides_no_other(
    install_distribution, caplog, source, target, message
):
    install_distribution("acme-bad", source, target=target)
    install_distribution("acme-good", GOOD_PLUGIN)

    plugins = PluginManager()
    names = [spec.name for spec in plugins.provided_specs()]

    assert names == ["good"]
    assert [r.getMessage() for r in caplog.records] == [message]
    assert record_of(plugins, "acme-bad").state is PluginState.FAILED


def test_a_wrong_argument_name_is_reported_with_the_plugin(install_distribution, caplog):
    install_distribution("acme-bad", WRONG_ARGUMENT)
    install_distribution("acme-good", GOOD_PLUGIN)

    plugins = PluginManager()

    assert [spec.name for spec in plugins.provided_specs()] == ["good"]
    assert "'contxt'" in caplog.text
    assert "plugin acme-bad 1.0 (plugin): hooks failed" in caplog.text


@pytest.mark.parametrize(
    "pattern", ["acme-bad", "acme_bad", "ACME.bad", "acme-bad:plugin", "acme-b*"]
)
def test_a_disabled_plugin_is_listed_and_never_imported(install_distribution, pattern):
    install_distribution("acme-bad", RAISES)
    install_distribution("acme-good", GOOD_PLUGIN, entry_point="other")

    plugins = PluginManager(settings=PluginsSettings(disable=(pattern,)))

    assert record_of(plugins, "acme-bad").state is PluginState.DISABLED
    assert "acme_bad" not in sys.modules
    assert record_of(plugins, "acme-good").state is PluginState.ACTIVE


def test_only_allowed_plugins_are_imported(install_distribution):
    install_distribution("acme-bad", RAISES)
    install_distribution("acme-good", GOOD_PLUGIN)

    plugins = PluginManager(settings=PluginsSettings(allow=("acme-good",)))

    assert record_of(plugins, "acme-bad").state is PluginState.NOT_ALLOWED
    assert "acme_bad" not in sys.modules
    assert [spec.name for spec in plugins.provided_specs()] == ["good"]


@pytest.mark.parametrize("value", ["acme-bad", "other, acme-bad", "*"])
def test_the_environment_variable_disables_plugins(install_distribution, monkeypatch, value):
    install_distribution("acme-bad", RAISES)
    monkeypatch.setenv("PYMODULES_DISABLE_PLUGINS", value)

    plugins = PluginManager()

    assert record_of(plugins, "acme-bad").state is PluginState.DISABLED
    assert plugins.records[0].state is PluginState.ACTIVE


def test_without_installed_plugins_nothing_is_read(install_distribution):
    install_distribution("acme-bad", RAISES)

    plugins = PluginManager(load_installed=False)

    assert [record.name for record in plugins.records] == ["pymodules-core:directory_scanner"]


def test_a_pattern_that_matches_nothing_is_reported(install_distribution, caplog, monkeypatch):
    install_distribution("acme-good", GOOD_PLUGIN)
    monkeypatch.setenv("PYMODULES_DISABLE_PLUGINS", "acme-bda, *")

    list_modules(PluginManager(settings=PluginsSettings(disable=("acme-god", "*"))))

    there_are = "there are: pymodules-core:directory_scanner, acme-good:plugin"
    assert caplog.messages == [
        f"plugins.disable: 'acme-god' matches no plugin; {there_are}",
        f"PYMODULES_DISABLE_PLUGINS: 'acme-bda' matches no plugin; {there_are}",
    ]


@pytest.mark.parametrize(
    ("toml", "line", "key"),
    [
        ('[plugins]\nallow = ["acme-god"]\n', 2, "plugins.allow"),
        ("[plugins.settings.acme-god]\nrate = 1\n", 1, "plugins.settings"),
    ],
    ids=["allow", "settings"],
)
def test_a_plugin_that_the_run_names_has_to_be_installed(
    install_distribution, home, toml, line, key
):
    install_distribution("acme-good", GOOD_PLUGIN)
    path = write_experiment(home, toml=toml)

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        f"data/experiments/tiny/experiment.toml:{line}: {key}: 'acme-god' matches no plugin; "
        "there are: pymodules-core:directory_scanner, acme-good:plugin\n"
        "  closest match: acme-good\n"
        "  fix: pip install acme-god, or remove it there"
    )


def test_without_installed_plugins_none_is_missed(home):
    path = write_experiment(home, toml='[plugins]\nallow = ["acme-god"]\n')
    experiment = Experiment.open(path)
    plugins = PluginManager.for_experiment(experiment, load_installed=False)

    assert list(ModulePool.discover(experiment, plugins=plugins)) == ["net"]


@pytest.mark.parametrize(
    ("code", "reason", "fix"),
    [
        (
            "@hookimpl(wrapper=True)\ndef provide_module(context):\n    return (yield)\n",
            "provide_module is a wrapper, and hooks are called one by one with nothing around them",
            "write @hookimpl without wrapper, and a function that does not yield",
        ),
        (
            "@hookimpl(hookwrapper=True)\ndef run_started(run):\n    yield\n",
            "run_started is a wrapper, and hooks are called one by one with nothing around them",
            "write @hookimpl without wrapper, and a function that does not yield",
        ),
        (
            "@hookimpl\ndef train_step(module_pool, batch):\n    return 1\n",
            "train_step is a task's function",
            "define it in pymodules/task.py of an experiment",
        ),
        (
            "@hookimpl\ndef provide_module(context=None):\n    return None\n",
            "argument 'context' of provide_module has a default, and such arguments are never "
            "passed",
            "remove the default of 'context'",
        ),
        (
            "@hookimpl\nasync def run_started(run):\n    pass\n",
            "run_started is async, and hooks are not awaited",
            "write def instead of async def",
        ),
    ],
    ids=["wrapper", "old wrapper", "task", "default", "async"],
)
def test_a_hook_that_would_never_be_called_as_meant_drops_the_plugin(
    install_distribution, code, reason, fix
):
    install_distribution("acme-good", GOOD_PLUGIN)
    install_distribution("acme-bad", f"from pymodules_core import hookimpl\n{code}")

    plugins = PluginManager()

    failure = record_of(plugins, "acme-bad").failure
    assert (failure.stage, failure.reason) == ("hooks", reason)
    assert failure.fix == f'{fix}, or switch it off: [plugins] disable = ["acme-bad"]'
    assert [spec.name for spec in plugins.provided_specs()] == ["good"]


def test_a_failed_plugin_that_the_run_asks_for_stops_it(install_distribution, home):
    install_distribution("acme-bad", RAISES)
    path = write_experiment(home, toml='[plugins]\nallow = ["acme-bad"]\n')

    with pytest.raises(PluginError) as caught:
        ModulePool.discover(path)

    assert caught.value.found == "acme-bad:plugin"
    assert str(caught.value) == (
        f"{path / 'experiment.toml'}:2: plugins.allow: the run needs plugin acme-bad 1.0 (plugin), "
        "and it failed: import failed: ValueError: boom\n"
        "  fix: pip install -U acme-bad, or remove it there"
    )


@pytest.mark.parametrize(
    ("source", "toml", "arguments", "why", "fix"),
    [
        (RAISES, "", [], "plugin acme-bad:plugin failed", "pip install -U acme-bad"),
        (LATE, "", [], "plugin acme-bad:plugin failed", "pip install -U acme-bad"),
        (
            GOOD_PLUGIN,
            '[plugins]\ndisable = ["acme-bad"]\n',
            [],
            "plugin acme-bad:plugin is disabled",
            "take 'acme-bad:plugin' out of [plugins] disable and PYMODULES_DISABLE_PLUGINS",
        ),
        (
            GOOD_PLUGIN,
            '[plugins]\nallow = ["acme-good"]\n',
            [],
            "plugin acme-bad:plugin is not allowed",
            "add 'acme-bad:plugin' to [plugins] allow",
        ),
        (
            GOOD_PLUGIN,
            "",
            ["--no-plugins"],
            "installed plugins are left out by --no-plugins",
            "leave out --no-plugins",
        ),
    ],
    ids=["raises", "raises late", "disabled", "not allowed", "no plugins"],
)
def test_an_override_to_a_plugin_that_takes_no_part_proposes_no_other(
    install_distribution, home, capsys, source, toml, arguments, why, fix
):
    install_distribution("acme-bad", source)
    install_distribution("acme-good", GOOD_PLUGIN)
    write_experiment(home, toml=f'[modules.override]\ngood = "acme-bad"\n{toml}')

    assert run(["list", "tiny", *arguments]) == 2

    error = capsys.readouterr().err.partition("error: ")[2]
    first, *lines = error.splitlines()
    assert first.startswith("data/experiments/tiny/experiment.toml:2: modules.override.good: ")
    assert lines == [f"  {why}", f"  fix: {fix}, or remove it there"]


def test_a_table_of_a_module_whose_plugin_failed_says_which_take_no_part(
    install_distribution, home
):
    install_distribution("acme-bad", RAISES)
    path = write_experiment(home, toml="[modules.settings.good]\nfrozen = true\n")

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert caught.value.what == (
        "modules.settings.good: no module is called 'good'; there are: net\n"
        "  of plugins, acme-bad:plugin failed"
    )


def test_an_interrupt_during_an_import_passes_through(install_distribution):
    install_distribution("acme-bad", "raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        PluginManager()


@pytest.mark.parametrize("is_disabled", [True, False], ids=["disabled", "no plugins"])
def test_a_plugin_that_ends_the_process_can_be_kept_out(tmp_path, monkeypatch, is_disabled):
    write_distribution(tmp_path, "acme-bad", "import os\nos._exit(0)\n")
    arguments = [] if is_disabled else ["--no-plugins"]
    variable = "acme-bad" if is_disabled else ""

    result = start_command(
        "plugins", *arguments, PYTHONPATH=str(tmp_path), PYMODULES_DISABLE_PLUGINS=variable
    )

    assert result.returncode == 0
    assert ("acme-bad:plugin" in result.stdout) is is_disabled
    assert "pymodules-core:directory_scanner" in result.stdout


def test_a_plugin_receives_its_own_settings_table(install_distribution):
    install_distribution(
        "acme-good",
        "from pymodules_core import ModuleSpec, hookimpl\n"
        "@hookimpl\n"
        "def provide_module(context):\n"
        "    return [ModuleSpec(name=n, factory='torch.nn:Identity')"
        " for n in context.settings['names']]\n",
        entry_point="copies",
    )

    plugins = PluginManager(settings=PluginsSettings(settings={"copies": {"names": ["b", "a"]}}))

    assert [spec.name for spec in plugins.provided_specs()] == ["a", "b"]


def test_listing_shows_both_providers_of_one_name(install_distribution):
    install_distribution("acme-good", GOOD_PLUGIN)
    install_distribution("acme-too", GOOD_PLUGIN, version="3.1")

    catalog = list_modules(PluginManager())

    assert [str(module.origin) for module in catalog.modules] == [
        "acme-good 1.0 (plugin)",
        "acme-too 3.1 (plugin)",
    ]
    assert str(catalog.conflict) == (
        "module 'good' is provided twice:\n"
        "  - acme-good 1.0 (plugin)\n"
        "  - acme-too 3.1 (plugin)\n"
        '  fix: pick one in experiment.toml:  [modules.override]  good = "acme-too"'
    )


def test_the_scanner_can_be_disabled_like_any_plugin(tmp_path):
    plugins = PluginManager(
        settings=PluginsSettings(disable=("directory_scanner",)), experiment_dir=Path(tmp_path)
    )

    assert plugins.records[0].state is PluginState.DISABLED
    assert plugins.provided_specs() == []


def test_functions_named_after_hooks_without_the_decorator_are_reported(
    install_distribution, caplog
):
    install_distribution("acme-plain", "def provide_module(context):\n    return None\n")

    record = record_of(PluginManager(), "acme-plain")

    assert str(record.failure) == (
        "plugin acme-plain 1.0 (plugin): hooks failed: provide_module without @hookimpl\n"
        "  fix: put @hookimpl above provide_module, "
        'or switch it off: [plugins] disable = ["acme-plain"]'
    )
    assert caplog.messages == [str(record.failure)]


def test_a_plugin_without_any_hook_is_reported(install_distribution):
    install_distribution("acme-nothing", "value = 1\n")

    failure = record_of(PluginManager(), "acme-nothing").failure

    assert failure.reason.startswith("it has no hook; hooks are provide_module, ")
    assert failure.fix.startswith("put @hookimpl above a function named after a hook, or ")


@pytest.mark.parametrize(
    ("source", "reason", "fix"),
    [
        (
            f"{GOOD_PLUGIN}\ndef run_started(run):\n    pass\n",
            "run_started without @hookimpl",
            "put @hookimpl above run_started",
        ),
        (
            f"{GOOD_PLUGIN}\n@hookimpl\ndef run_started(run):\n    yield\n",
            "run_started yields, and nothing would run what is in it",
            "write it without yield",
        ),
        (
            f"{GOOD_PLUGIN}\n@hookimpl\ndef run_started(runn):\n    pass\n",
            "run_started wants argument 'runn'; it may take run",
            "rename it to 'run'",
        ),
    ],
    ids=["undecorated", "generator", "argument"],
)
def test_one_hook_that_would_not_be_called_drops_a_plugin_with_others(
    install_distribution, source, reason, fix
):
    install_distribution("acme-bad", source.replace('"good"', '"bad"'))
    install_distribution("acme-good", GOOD_PLUGIN)

    plugins = PluginManager()

    failure = record_of(plugins, "acme-bad").failure
    assert (failure.reason, failure.fix.partition(", or ")[0]) == (reason, fix)
    assert [spec.name for spec in plugins.provided_specs()] == ["good"]


def test_a_plugin_that_gives_one_name_twice_is_dropped(install_distribution, caplog):
    source = GOOD_PLUGIN.replace("return ", "for _ in range(2):\n        yield ")
    install_distribution("acme-twice", source)

    assert PluginManager().provided_specs() == []
    assert "ValueError: provide_module gives module 'good' twice" in caplog.text


def test_a_table_of_a_plugin_that_is_kept_out_is_reported(install_distribution, home, caplog):
    install_distribution("acme-good", GOOD_PLUGIN)
    toml = '[plugins]\ndisable = ["acme-good"]\n[plugins.settings.plugin]\nx = 1\n'

    ModulePool.discover(write_experiment(home, toml=toml))

    assert caplog.messages == [
        "plugins.settings.plugin is of acme-good:plugin, which is disabled: nothing comes of it"
    ]
