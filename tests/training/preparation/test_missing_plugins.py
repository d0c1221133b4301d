"""Runs and checkpoints whose plugin is gone: what it was, and the command that brings it back."""

from pathlib import Path

import pytest
from plugin_cases import PROVIDER, Site
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core import Experiment, ModulePool, Trainer
from pymodules_core.cli.main import run
from pymodules_core.errors import (
    RunChangedError,
    SettingsError,
    UnknownModuleError,
)
from pymodules_core.training.evaluation import evaluate
from pymodules_core.training.run_output.console import SilentPrinter

PIP = "pip install acme-nets==1.2.0"
USING_TASK = TINY_TASK.replace(
    "module_pool.net(inputs)", "module_pool.net(module_pool.acme(inputs))"
)
# Needs the module before the first step.
EAGER_TASK = USING_TASK.replace("    return SGD(", "    module_pool.acme\n    return SGD(")


@pytest.fixture
def site(tmp_path, monkeypatch):
    site = Site(tmp_path / "site", monkeypatch)
    yield site
    site.close()


@pytest.fixture
def trained(site, home):
    """Train with acme-nets 1.2.0, and return the experiment once it is uninstalled."""

    def train(task=TINY_TASK, *, toml=""):
        site.install("acme-nets", PROVIDER, version="1.2.0", entry_point="encoders")
        path = write_experiment(
            home, task=task, toml=f"[train]\nepochs = 2\nbatch_size = 16\n{toml}"
        )
        Trainer(path, reporter=SilentPrinter()).fit()
        site.uninstall("acme-nets")
        return path

    return train


def go_on(path, **options):
    overrides = {"train.epochs": 3}
    return Trainer(
        path, existing="resume", overrides=overrides, reporter=SilentPrinter(), **options
    ).fit()


def test_a_resume_says_what_is_gone_and_how_to_get_it(trained):
    path = trained()

    with pytest.raises(RunChangedError) as caught:
        go_on(path)

    assert str(caught.value) == (
        "experiment 'tiny' is not what its run began with\n"
        "  plugin acme-nets:encoders 1.2.0 is gone\n"
        f"  fix: put it back ({PIP}), or resume with the changes: --resume --accept-changes"
    )


def test_a_resume_with_another_version_says_how_to_get_the_old_one(trained, site):
    path = trained()
    site.install("acme-nets", PROVIDER, version="2.0", entry_point="encoders")

    with pytest.raises(RunChangedError) as caught:
        go_on(path)

    assert caught.value.found == ["plugin acme-nets:encoders: 1.2.0 -> 2.0"]
    assert PIP in caught.value.fix


@pytest.mark.parametrize(
    ("source", "disable", "options", "why", "fix"),
    [
        (
            PROVIDER,
            "",
            {"load_installed": False},
            "is left out by --no-plugins",
            "leave out --no-plugins",
        ),
        (
            PROVIDER,
            "acme-nets",
            {},
            "is disabled",
            "take 'acme-nets:encoders' out of [plugins] disable and PYMODULES_DISABLE_PLUGINS",
        ),
        ("1 / 0", "", {}, "failed", "pip install -U acme-nets"),
    ],
    ids=["no plugins", "disabled", "failed"],
)
def test_a_plugin_that_is_installed_and_takes_no_part_is_not_gone(
    trained, site, monkeypatch, source, disable, options, why, fix
):
    path = trained()
    site.install("acme-nets", source, version="1.2.0", entry_point="encoders")
    monkeypatch.setenv("PYMODULES_DISABLE_PLUGINS", disable)

    with pytest.raises(RunChangedError) as caught:
        go_on(path, **options)

    assert caught.value.found == [f"plugin acme-nets:encoders 1.2.0 {why}"]
    assert caught.value.fix == (
        f"put it back ({fix}), or resume with the changes: --resume --accept-changes"
    )


def test_a_listing_with_settings_of_a_module_that_is_gone_says_so(trained, capsys):
    trained()
    toml = "data/experiments/tiny/experiment.toml"
    Path(toml).write_text("[modules.settings.acme]\nfrozen = true\n")

    assert run(["list", "tiny"]) == 2

    assert capsys.readouterr().err == (
        f"error: {toml}:1: modules.settings.acme: no module is called 'acme'; there are: net\n"
        "  run.json says acme-nets 1.2.0 provided it\n"
        f"  fix: {PIP}, or remove it there\n"
    )


def test_accepted_the_run_continues_and_keeps_the_weights(trained):
    path = trained()

    go_on(path, accept_changes=True)

    assert (path / "data" / "module_ckps" / "frzn" / "acme.pt").exists()


def test_a_task_that_needs_the_module_gets_the_same_answer(trained):
    path = trained(EAGER_TASK)

    with pytest.raises(UnknownModuleError) as caught:
        go_on(path)

    assert caught.value.what == (
        "no module 'acme' in the pool; there are: net\n  run.json says acme-nets 1.2.0 provided it"
    )
    assert (caught.value.closest, caught.value.fix) == (None, PIP)


def test_a_pool_of_the_experiment_says_it_too(trained):
    pool = ModulePool.discover(trained())

    for ask in (lambda: pool["acme"], lambda: pool.acme):
        with pytest.raises(UnknownModuleError) as caught:
            ask()
        assert caught.value.what.endswith("run.json says acme-nets 1.2.0 provided it")
        assert caught.value.fix == PIP
    assert "acme" not in pool
    assert pool.get("acme") is None


def test_a_module_with_a_name_like_it_is_not_proposed(trained):
    path = trained()
    (path / "pymodules" / "modules" / "acme_2.py").write_text(TINY_MODULE)

    with pytest.raises(UnknownModuleError) as caught:
        _ = ModulePool.discover(path).acme

    assert (caught.value.closest, caught.value.fix) == (None, PIP)


def test_a_factory_that_asks_for_the_module_says_it_too(trained):
    path = trained()
    other = path / "pymodules" / "modules" / "user.py"
    other.write_text("def build(module_pool):\n    return module_pool.acme\n")

    with pytest.raises(UnknownModuleError) as caught:
        ModulePool.discover(path)

    assert caught.value.fix == PIP


def test_a_plugin_that_is_installed_and_gives_nothing_is_looked_for_elsewhere(trained, site):
    path = trained()
    site.install("acme-nets", PROVIDER, version="1.2.0", entry_point="encoders")
    experiment = Experiment.open(path, overrides={"modules.exclude": ["acme"]})

    with pytest.raises(UnknownModuleError) as caught:
        _ = ModulePool.discover(experiment).acme

    assert caught.value.fix == (
        "acme-nets 1.2.0 is installed: `pymodules plugins` says what it gives, and [plugins] and "
        "[modules] in experiment.toml what is left out"
    )


def test_an_experiment_that_lost_its_only_modules_says_whose_they_were(trained):
    path = trained()
    (path / "pymodules" / "modules" / "net.py").unlink()

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert caught.value.what == (
        "no module in the pool of experiment 'tiny'\n"
        "  run.json says that its run had modules of acme-nets 1.2.0"
    )
    assert caught.value.fix == PIP


def test_a_name_that_no_run_knows_is_a_slip_as_ever(trained):
    with pytest.raises(UnknownModuleError) as caught:
        _ = ModulePool.discover(trained()).nett

    assert str(caught.value) == (
        "no module 'nett' in the pool; there are: net\n  closest match: net\n  fix: write 'net'"
    )


@pytest.mark.parametrize("table", ["settings", "args", "override"])
def test_a_table_of_a_module_that_is_gone_names_its_plugin(trained, table):
    path = trained()
    value = "acme-nets" if table == "override" else {"x": 1}
    if table == "settings":
        value = {"frozen": True}
    experiment = Experiment.open(path, overrides={f"modules.{table}.acme": value})

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(experiment)

    assert caught.value.key == f"modules.{table}.acme"
    assert "run.json says acme-nets 1.2.0 provided it" in caught.value.what
    assert caught.value.fix == f"{PIP}, or remove it there"


def test_an_override_whose_provider_is_gone_names_its_version(trained, site):
    path = trained()
    site.install("acme-other", PROVIDER)
    experiment = Experiment.open(path, overrides={"modules.override.acme": "acme-nets"})

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(experiment)

    assert "modules.override.acme: 'acme-nets' provides no module" in caught.value.what
    assert caught.value.fix == f"{PIP}, or remove it there"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("plugins.allow", ["acme-nets"]),
        ("plugins.settings.acme-nets", {"x": 1}),
        ("plugins.settings.encoders", {"x": 1}),
        ("plugins.allow", ["acme-nets:encoders"]),
    ],
)
def test_a_table_of_a_plugin_that_is_gone_names_its_version(trained, key, value):
    path = trained()
    experiment = Experiment.open(path, overrides={key: value})

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(experiment)

    assert caught.value.what.endswith("\n  run.json says acme-nets 1.2.0 provided it")
    assert caught.value.fix == f"{PIP}, or remove it there"


@pytest.mark.parametrize("task", [TINY_TASK, EAGER_TASK], ids=["unused", "used"])
@pytest.mark.parametrize("has_run_file", [True, False])
def test_eval_without_the_plugin_is_one_error_with_the_command(
    trained, capsys, monkeypatch, task, has_run_file
):
    path = trained(task)
    if not has_run_file:
        (path / "data" / "run.json").unlink()

    assert run(["eval", "tiny", "--pool", "best"]) == 2

    error = capsys.readouterr().err
    assert error.count(PIP) == 1
    assert "acme-nets 1.2.0" in error


def test_eval_continues_without_a_module_that_was_left_out_on_purpose(trained, site):
    path = trained()
    site.install("acme-nets", PROVIDER, version="3.0", entry_point="encoders")
    experiment = Experiment.open(path, overrides={"modules.exclude": ["acme"]})

    assert evaluate(experiment, "best").epoch == 2


def test_eval_continues_where_the_run_continued_without_the_plugin(trained):
    path = trained()
    go_on(path, accept_changes=True)

    assert evaluate(Experiment.open(path), "last").epoch == 3


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"modules": 3}', '{"modules": [3, {"name": "acme", "origin": 3}]}']
)
def test_a_damaged_run_json_knows_nothing(trained, content):
    path = trained()
    (path / "data" / "run.json").write_text(content)

    with pytest.raises(UnknownModuleError) as caught:
        _ = ModulePool.discover(path).acme

    assert caught.value.what == "no module 'acme' in the pool; there are: net"
