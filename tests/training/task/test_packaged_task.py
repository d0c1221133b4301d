"""A task that comes from an installed package: real metadata on disk, a real run."""

import json
from pathlib import Path

import pytest
from support import TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.errors import PluginError, RunChangedError, SettingsError, StepError, TaskError
from pymodules_core.training.run_output.console import SilentPrinter

CHOICE = '[experiment]\ntask = "acme-tasks:regression"\n[train]\nepochs = 2\nbatch_size = 16\n'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with tasks on ``sys.path``, beside one that is broken."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    written = []

    def write(source: str, *, name="acme-tasks", version="1.2", package=None) -> Path:
        package = package or f"acme_tasks_{tmp_path.name.replace('-', '_')}_{len(written)}"
        written.append(package)
        file = site / f"{package}.py"
        file.write_text(source)
        metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(
            f"[pymodules.tasks]\nregression = {package}\nvalue = {package}:train_data\n"
        )
        return file

    write("1 / 0", name="acme-broken")
    return write


def fit(path, **more):
    return Trainer(path, reporter=SilentPrinter(), **more).fit()


def experiment(tmp_path, toml=CHOICE):
    path = write_experiment(tmp_path, toml=toml)
    (path / "pymodules" / "task.py").unlink()
    return path


def test_the_task_of_a_package_trains_the_experiments_modules(tmp_path, install):
    install(TINY_TASK)
    path = experiment(tmp_path)

    result = fit(path)

    assert (result.epochs, result.steps) == (2, 6)
    plugins = json.loads((path / "data" / "run.json").read_text())["plugins"]
    assert {
        "name": "task",
        "kind": "distribution",
        "distribution": "acme-tasks",
        "version": "1.2",
        "entry_point": "regression",
    } in plugins


def test_a_resume_with_another_version_of_the_task_says_so(tmp_path, install):
    file = install(TINY_TASK)
    path = experiment(tmp_path)
    fit(path)
    metadata = file.parent / "acme_tasks-1.2.dist-info" / "METADATA"
    metadata.write_text("Name: acme-tasks\nVersion: 1.3\n")

    with pytest.raises(RunChangedError) as caught:
        fit(path, existing="resume", overrides={"train.epochs": 3})

    assert caught.value.found == ["plugin task: 1.2 -> 1.3"]


def test_a_step_that_raises_is_named_in_the_packages_file(tmp_path, install):
    file = install(TINY_TASK.replace("    return mse_loss", "    1 / 0\n    return mse_loss", 1))
    path = experiment(tmp_path)

    with pytest.raises(StepError) as caught:
        fit(path)

    assert caught.value.file == file
    assert caught.value.line == 1 + file.read_text().splitlines().index("    1 / 0")


@pytest.mark.parametrize(
    ("name", "what", "fix"),
    [
        (
            "acme-tasks:regresion",
            "no installed package offers the task 'acme-tasks:regresion'; there are: "
            "acme-broken:regression, acme-broken:value, acme-tasks:regression, acme-tasks:value",
            "write 'acme-tasks:regression'",
        ),
        (
            "other:segmentation",
            "no installed package offers the task 'other:segmentation'; there are: "
            "acme-broken:regression, acme-broken:value, acme-tasks:regression, acme-tasks:value",
            "pip install other",
        ),
    ],
)
def test_a_task_that_nobody_offers_is_named_with_those_there_are(
    tmp_path, install, name, what, fix
):
    install(TINY_TASK)
    path = experiment(tmp_path, CHOICE.replace("acme-tasks:regression", name))

    with pytest.raises(SettingsError) as caught:
        fit(path)

    assert caught.value.what == f"experiment.task: {what}"
    assert (caught.value.fix, caught.value.line) == (fix, 2)


def test_two_tasks_are_refused(tmp_path, install, monkeypatch):
    monkeypatch.chdir(tmp_path)
    install(TINY_TASK)
    path = write_experiment(tmp_path, toml=CHOICE)

    with pytest.raises(SettingsError) as caught:
        fit(path)

    assert str(caught.value) == (
        "experiments/tiny/experiment.toml:2: experiment.task: 'acme-tasks:regression' is the task, "
        "and experiments/tiny/pymodules/task.py is there, too\n"
        "  fix: remove one of the two"
    )


def test_without_installed_plugins_there_is_no_such_task(tmp_path, install):
    install(TINY_TASK)

    with pytest.raises(SettingsError, match="installed plugins are turned off"):
        fit(experiment(tmp_path), load_installed=False)


def test_a_package_that_cannot_be_imported_is_named(tmp_path, install):
    path = experiment(tmp_path, CHOICE.replace("acme-tasks", "acme-broken"))

    with pytest.raises(PluginError) as caught:
        fit(path)

    assert caught.value.what == (
        "the task acme-broken:regression of acme-broken 1.2 cannot be imported: "
        "ZeroDivisionError: division by zero"
    )


def test_a_package_that_misses_a_library_names_it(tmp_path, install):
    install("import no_such_library")

    with pytest.raises(PluginError, match="No module named 'no_such_library'") as caught:
        fit(experiment(tmp_path))

    assert caught.value.fix == "pip install no_such_library"


def test_a_task_of_which_only_metadata_is_left_is_installed_again(tmp_path, install):
    install(TINY_TASK).unlink()

    with pytest.raises(PluginError, match="No module named") as caught:
        fit(experiment(tmp_path))

    assert caught.value.fix == "pip install --force-reinstall acme-tasks"


def test_an_entry_point_that_is_not_a_python_module_is_refused(tmp_path, install):
    install(TINY_TASK)
    path = experiment(tmp_path, CHOICE.replace("regression", "value"))

    with pytest.raises(PluginError, match="is function, expected a Python module of functions"):
        fit(path)


def test_a_slip_in_a_package_is_found(tmp_path, install):
    install(TINY_TASK.replace("def train_step(", "def train_stp("))

    with pytest.raises(TaskError, match="function 'train_stp' is not a hook"):
        fit(experiment(tmp_path))


def test_a_task_whose_package_is_gone_is_reported_with_the_version_it_had(tmp_path, install):
    file = install(TINY_TASK)
    path = experiment(tmp_path)
    fit(path)
    metadata = file.parent / "acme_tasks-1.2.dist-info"
    metadata.rename(file.parent / "gone")

    with pytest.raises(SettingsError) as caught:
        fit(path, existing="resume")

    assert "run.json says acme-tasks 1.2 provided it" in caught.value.what
    assert caught.value.fix == "pip install acme-tasks==1.2"
