"""What failures of plugins do to a run, wherever they are called."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from support import TINY_TASK, write_experiment

from pymodules_core import Experiment, Trainer
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.cli.main import run
from pymodules_core.errors import PluginError, SettingsError, StepError, TaskError
from pymodules_core.run_files import checkpoints_dir
from pymodules_core.testing import train_steps
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.console import SilentPrinter

FORGETFUL = """
from pymodules_core import ModuleSpec, hookimpl

class Plugin:
    @hookimpl
    def epoch_finished(self, run):
        (run.data_dir / "called").touch()

    def state_dict(self):
        {state_dict}

    def load_state_dict(self, state):
        {load_state_dict}
"""
PROVIDES = """
    @hookimpl
    def provide_module(self):
        return ModuleSpec(name="average", factory="torch.nn:Identity")
"""
CHOOSY = """
import attrs
from pymodules_core import hookimpl
from pymodules_core.errors import SettingsError

class Plugin:
    @attrs.frozen
    class Settings:
        module: str = "net"

    def __init__(self, settings):
        self.settings = settings

    @hookimpl
    def provide_module(self, context):
        self.key = f"{context.settings_key}.module"
        if self.settings.module == "none":
            raise context.locate(SettingsError(f"{self.key}: none is not a module", key=self.key))

    @hookimpl
    def weights_ready(self, run):
        if self.settings.module not in run.module_pool:
            what = f"{self.key}: there is no module {self.settings.module!r}"
            raise run.experiment.locate(SettingsError(what, key=self.key, fix="name another"))
"""


def forgetful(state_dict="return {}", load_state_dict="pass"):
    source = FORGETFUL.replace("{state_dict}", state_dict)
    return source.replace("{load_state_dict}", load_state_dict)


def fit(path, **options):
    return Trainer(path, reporter=SilentPrinter(), **options).fit()


def test_a_loggers_state_that_fails_is_reported_once_and_the_run_continues(
    install_distribution, tmp_path, caplog
):
    source = forgetful("raise OSError('disk full')")
    install_distribution("acme-logger", source, target="acme_logger:Plugin")
    path = write_experiment(tmp_path)

    result = fit(path)

    assert result.epochs == 2
    assert (path / "data" / "called").exists()
    assert caplog.messages == [
        "state_dict of plugin acme-logger 1.0 (plugin) raises OSError: disk full "
        "(epoch 0, step 0); training continues without it"
    ]


def test_a_loggers_state_that_it_cannot_take_back_is_reported(
    install_distribution, tmp_path, caplog
):
    source = forgetful("return {'a': 1}", "raise KeyError('b')")
    install_distribution("acme-logger", source, target="acme_logger:Plugin")
    path = write_experiment(tmp_path)
    train_steps(path, 2)

    train_steps(path)

    assert caplog.messages == [
        "load_state_dict of plugin acme-logger 1.0 (plugin) raises KeyError: 'b' "
        "(epoch 1, step 2); training continues without it"
    ]


@pytest.mark.parametrize("state", ["raise OSError('no')", "return {'a': object()}"])
def test_a_providers_state_that_fails_fails_the_run(install_distribution, tmp_path, state):
    source = forgetful(state) + PROVIDES
    install_distribution("acme-average", source, target="acme_average:Plugin")

    with pytest.raises(PluginError, match="state_dict of plugin acme-average"):
        fit(write_experiment(tmp_path))


def test_settings_that_a_hook_finds_wrong_are_the_experiments_mistake(install_distribution, home):
    install_distribution("acme-choosy", CHOOSY, target="acme_choosy:Plugin")
    path = write_experiment(home, toml='[plugins.settings.plugin]\nmodule = "nett"\n')

    with pytest.raises(SettingsError) as caught:
        fit(path)

    assert str(caught.value) == (
        "data/experiments/tiny/experiment.toml:2: plugins.settings.plugin.module: there is no "
        "module 'nett'\n  says plugin acme-choosy 1.0 (plugin)\n  fix: name another"
    )
    assert caught.value.exit_code == 2
    assert not (path / "data").exists()


def test_settings_that_a_provider_finds_wrong_end_a_listing(install_distribution, home, capsys):
    install_distribution("acme-choosy", CHOOSY, target="acme_choosy:Plugin")
    write_experiment(home, toml='[plugins.settings.acme-choosy]\nmodule = "none"\n')

    assert run(["list", "tiny"]) == 2
    assert capsys.readouterr().err == (
        "error: data/experiments/tiny/experiment.toml:2: plugins.settings.acme-choosy.module: none "
        "is not a module\n  says plugin acme-choosy 1.0 (plugin)\n"
    )


def test_settings_that_nobody_wrote_are_the_plugins_own_mistake(install_distribution, home, caplog):
    source = CHOOSY.replace('module: str = "net"', 'module: str = "none"')
    install_distribution("acme-choosy", source, target="acme_choosy:Plugin")

    fit(write_experiment(home))

    assert caplog.messages[0].startswith(
        "plugin acme-choosy 1.0 (plugin): provide_module failed: SettingsError: "
    )


def test_a_logger_that_blames_settings_in_the_middle_of_a_run_does_not_end_it(
    install_distribution, home, caplog
):
    source = CHOOSY.replace("weights_ready", "train_step_finished")
    install_distribution("acme-choosy", source, target="acme_choosy:Plugin")
    path = write_experiment(home, toml='[plugins.settings.plugin]\nmodule = "nett"\n')

    fit(path)

    (told,) = caplog.messages
    assert told.startswith(
        "train_step_finished of plugin acme-choosy 1.0 (plugin) raises SettingsError"
    )


def test_a_commit_is_reported_as_soon_as_it_is_on_disk(install_distribution, tmp_path):
    install_distribution(
        "acme-recorder",
        "from pymodules_core import hookimpl\nseen = []\n"
        "@hookimpl\ndef checkpoint_committed(run, receipt):\n"
        "    seen.append((receipt.step, run.step))\n",
    )
    toml = "[train]\nepochs = 1\nbatch_size = 1\n[checkpoints]\nevery_n_steps = 8\n"
    # After the commit each step gives the disk a second, until it was reported.
    task = TINY_TASK.replace(
        "def train_step(module_pool, batch):",
        "def train_step(module_pool, batch, run):\n"
        "    import sys, time\n"
        "    told = [step for step, _ in sys.modules['acme_recorder'].seen]\n"
        "    for _ in range(100 if run.step in range(8, 16) and 8 not in told else 0):\n"
        "        time.sleep(0.01)",
    )

    fit(write_experiment(tmp_path, task=task, toml=toml))

    told = dict(sys.modules["acme_recorder"].seen)
    assert told[8] < 16  # at the next commit it would be reported anyhow


def test_a_module_without_gradients_is_shown_as_not_trained(install_distribution, home, capsys):
    install_distribution("acme-average", forgetful() + PROVIDES, target="acme_average:Plugin")
    path = write_experiment(home)

    assert run(["train", "tiny"]) == 0

    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["average", "no"] in rows
    assert ["net", "yes"] in rows
    modules = json.loads((path / "data" / "run.json").read_text())["modules"]
    assert [module["trained"] for module in modules] == [False, True]


COUNTER = """
from pymodules_core import hookimpl

class Counter:
    def __init__(self):
        self.steps = 0

    @hookimpl
    def train_step_finished(self, run):
        self.steps += 1

    @hookimpl
    def run_started(self, run):
        with (run.data_dir / "seen.txt").open("a") as file:
            file.write(f"{self.steps} ")

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]
"""


def go_on(path, epochs):
    fit(
        path,
        existing="resume",
        accept_changes=True,
        overrides={"train.epochs": epochs, "train.batch_size": 20},
    )


def test_the_state_of_a_plugin_that_is_away_for_a_while_is_kept(
    install_distribution, tmp_path, monkeypatch
):
    install_distribution("acme-counter", COUNTER, target="acme_counter:Counter")
    path = write_experiment(tmp_path)
    go_on(path, 1)
    monkeypatch.setenv("PYMODULES_DISABLE_PLUGINS", "acme-counter")
    go_on(path, 2)
    monkeypatch.delenv("PYMODULES_DISABLE_PLUGINS")

    go_on(path, 3)

    assert (path / "data" / "seen.txt").read_text() == "0 2 "


def test_a_state_that_a_plugin_cannot_take_is_kept_for_one_that_can(
    install_distribution, tmp_path, monkeypatch
):
    source = COUNTER.replace(
        "self.steps = state",
        "1 / int(__import__('os').environ['GOOD'])\n        self.steps = state",
    )
    install_distribution("acme-counter", source, target="acme_counter:Counter")
    path = write_experiment(tmp_path)
    monkeypatch.setenv("GOOD", "1")
    go_on(path, 1)
    monkeypatch.setenv("GOOD", "0")
    go_on(path, 2)
    monkeypatch.setenv("GOOD", "1")

    go_on(path, 3)

    assert (path / "data" / "seen.txt").read_text() == "0 0 2 "


def test_a_metric_that_is_logged_outside_of_a_step_is_refused(install_distribution, tmp_path):
    task = TINY_TASK + "\n\ndef train_step_finished(run):\n    run.log('norm', 1.0)\n"

    with pytest.raises(TaskError) as caught:
        fit(write_experiment(tmp_path, task=task))

    assert caught.value.what == "run.log('norm') is called outside of a step, so it is of no batch"
    assert caught.value.fix == "log it in train_step or eval_step; a hook writes to run.data_dir"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("torch.set_grad_enabled(False)", "grad mode from True to False"),
        ("torch.set_default_dtype(torch.float64)", "default dtype from torch.float32 to torch.f"),
        ("__import__('os').chdir('/')", "working directory from "),
    ],
    ids=["grad mode", "dtype", "working directory"],
)
def test_what_a_step_hook_changes_is_put_back_before_the_next_step_and_reported_once(
    install_distribution, tmp_path, caplog, change, name
):
    install_distribution(
        "acme-step",
        "import torch\nfrom pymodules_core import hookimpl\n"
        f"@hookimpl\ndef train_step_finished():\n    {change}\n",
    )

    before = Path.cwd()

    fit(write_experiment(tmp_path))

    (told,) = caplog.messages
    assert told.startswith(
        f"train_step_finished of plugin acme-step 1.0 (plugin) changed the {name}"
    )
    assert Path.cwd() == before


def test_a_mode_of_torch_that_a_hook_sets_is_put_back(install_distribution, tmp_path, caplog):
    install_distribution(
        "acme-mode",
        "import torch\nfrom pymodules_core import hookimpl\n"
        "@hookimpl\ndef run_started():\n    torch.use_deterministic_algorithms(True)\n"
        "    torch.set_float32_matmul_precision('medium')\n",
    )

    fit(write_experiment(tmp_path))

    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
    assert len(caplog.messages) == 2


def test_every_plugin_hears_of_a_failure_although_the_tasks_own_hook_fails(
    install_distribution, tmp_path, caplog
):
    install_distribution(
        "acme-closer",
        "from pymodules_core import hookimpl\n@hookimpl\ndef run_failed(run, error):\n"
        "    (run.data_dir / 'closed').write_text(type(error).__name__)\n",
    )
    task = TINY_TASK.replace("return mse_loss", "1 / 0\n    return mse_loss", 1)
    path = write_experiment(
        tmp_path, task=task + "\n\ndef run_failed(run):\n    raise OSError('no mail')\n"
    )

    with pytest.raises(StepError, match="division by zero"):
        fit(path)

    assert (path / "data" / "closed").read_text() == "StepError"
    assert "run_failed raises OSError: no mail" in caplog.text


HOOKS = {
    "weights_ready": "epoch 0, step 0",
    "checkpoint_committed": "epoch 0, step 0",
    "run_started": "epoch 0, step 0",
    "epoch_finished": "epoch 0, step 0",
    "train_step_finished": "epoch 1, step 1",
    "run_finished": "epoch 1, step 1",
}
PROVIDES_AVERAGE = """
@hookimpl
def provide_module():
    return ModuleSpec(name="average", factory="torch.nn:Identity")
"""
RAISING = """
from pymodules_core import ModuleSpec, hookimpl

class Stop(BaseException):
    pass
"""


def raising(statement, hooks):
    return RAISING + "".join(f"@hookimpl\ndef {name}():\n    {statement}\n" for name in hooks)


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("raise OSError('no disk')", "OSError: no disk"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise Stop('now')", "Stop: now"),
    ],
    ids=["error", "exit", "no exception"],
)
def test_a_logger_that_fails_in_every_hook_is_reported_once_for_each_and_the_run_ends_well(
    install_distribution, tmp_path, caplog, statement, shown
):
    install_distribution("acme-logger", raising(statement, HOOKS))
    path = write_experiment(tmp_path, toml="[train]\nepochs = 1\n")

    result = fit(path)

    assert result.epochs == 1
    assert caplog.messages == [
        f"{name} of plugin acme-logger 1.0 (plugin) raises {shown} ({where}); "
        f"{'the run ends' if name == 'run_finished' else 'training continues'} without it"
        for name, where in HOOKS.items()
    ]
    assert json.loads((path / "data" / "run.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("name", HOOKS)
def test_a_provider_that_fails_in_a_hook_fails_the_run_and_its_checkpoints_are_whole(
    install_distribution, tmp_path, caplog, name
):
    source = raising("raise OSError('no disk')", [name]) + PROVIDES_AVERAGE
    install_distribution("acme-average", source)
    path = write_experiment(tmp_path, toml="[train]\nepochs = 1\n")

    with pytest.raises(PluginError) as caught:
        fit(path)

    assert caught.value.what == (
        f"{name} of plugin acme-average 1.0 (plugin) raises OSError: no disk ({HOOKS[name]})"
    )
    assert caught.value.exit_code == 1
    assert caplog.messages == []
    if name != "weights_ready":
        layout = Layout(checkpoints_dir(path))
        assert verify_store(layout, digest_of_file).damages == []


def test_a_hook_that_failed_the_run_is_not_called_while_that_is_reported(
    install_distribution, tmp_path
):
    source = raising("calls.append(1); raise OSError('no disk')", ["checkpoint_committed"])
    install_distribution("acme-average", f"{source}calls = []\n{PROVIDES_AVERAGE}")
    path = write_experiment(tmp_path)
    session = Session.prepare(
        Experiment.open(path), data_dir=path / "data", reporter=SilentPrinter()
    )

    with pytest.raises(PluginError):
        session.events.emit("checkpoint_committed", receipt=None)
    session.events.emit("checkpoint_committed", receipt=None)

    assert sys.modules["acme_average"].calls == [1]


@pytest.mark.parametrize("name", ["run_finished", "run_failed"])
def test_a_plugin_that_hangs_at_the_end_is_ended(install_distribution, tmp_path, caplog, name):
    install_distribution("acme-logger", raising("import time; time.sleep(30)", [name]) + "\n")
    task = TINY_TASK
    if name == "run_failed":
        task = task.replace("return mse_loss", "1 / 0\n    return mse_loss", 1)
    toml = "[train]\nepochs = 1\n[plugins]\nclose_timeout_s = 0.1\n"
    path = write_experiment(tmp_path, task=task, toml=toml)
    start = time.monotonic()

    if name == "run_finished":
        fit(path)
    else:
        with pytest.raises(StepError, match="division by zero"):
            fit(path)

    assert time.monotonic() - start < 20
    (told,) = caplog.messages
    assert told.startswith(
        f"{name} of plugin acme-logger 1.0 (plugin) raises CallTimeoutError: it was not done after "
        "0.1 s "
    )
    state = json.loads((path / "data" / "run.json").read_text())["state"]
    assert state == ("finished" if name == "run_finished" else "failed")
