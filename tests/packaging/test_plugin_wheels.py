"""The packages of ``plugins/``: only wheels, in a fresh environment, as users install them."""

import json
import shutil
from pathlib import Path

import pytest
from wheel_cases import REPOSITORY, Environment

PACKAGES = (
    "pymodules-ema",
    "pymodules-example",
    "pymodules-lightning",
    "pymodules-tensorboard",
    "pymodules-transformers",
)
# A table for each, with which it has something to show.
SETTINGS = {
    "pymodules-ema": ['modules=["net"]', "update_every_n_steps=2"],
    "pymodules-example": [],
    "pymodules-lightning": [
        "modules.layer.lightning_module=lightning.pytorch.demos.boring_classes:BoringModel",
        "modules.layer.attribute=layer",
    ],
    "pymodules-tensorboard": ["every_n_steps=1", 'histograms=["net"]'],
    "pymodules-transformers": [
        "modules.lm.model=gpt2",
        "modules.lm.head=causal-lm",
        "modules.lm.config={n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=8}",
    ],
}


SLOW_PACKAGES = {"pymodules-lightning", "pymodules-tensorboard"}


def install(environment: Environment, wheels: dict[str, Path], *names: str) -> None:
    environment.pip(
        "install", "--no-index", "--no-deps", "--quiet", *[str(wheels[name]) for name in names]
    )


def uninstall(environment: Environment, *names: str) -> None:
    environment.pip("uninstall", "--yes", "--quiet", *names)


def copy_text_model(folder: Path) -> None:
    place = Path("data", "experiments", "text_model")
    ignored = shutil.ignore_patterns("data", "data.*", "__pycache__")
    shutil.copytree(REPOSITORY / place, folder / place, ignore=ignored)


def test_there_is_a_wheel_of_each_package(plugin_wheels):
    assert tuple(plugin_wheels) == PACKAGES


@pytest.mark.parametrize(
    "name",
    [
        # What they stand on is imported again and again, which takes a minute each.
        pytest.param(name, marks=[pytest.mark.long] if name in SLOW_PACKAGES else [])
        for name in PACKAGES
    ],
)
def test_the_packages_own_tests_pass_and_it_conforms(environment, plugin_wheels, tmp_path, name):
    install(environment, plugin_wheels, name)
    # Without its sources, so that the wheel is what is tested; with the example that it tests.
    project = tmp_path / "plugins" / name
    shutil.copytree(
        REPOSITORY / "plugins" / name, project, ignore=shutil.ignore_patterns("src", "__pycache__")
    )
    copy_text_model(tmp_path)
    try:
        tested = environment.run(
            "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project
        )
        options = [word for setting in SETTINGS[name] for word in ("-s", setting)]
        checked = environment.run("pymodules", "check", "--plugin", name, *options, cwd=tmp_path)
    finally:
        uninstall(environment, name)

    assert "skipped" not in tested.stdout
    assert checked.stdout.endswith(f"{name} fulfils all that a plugin has to\n")


@pytest.mark.long
def test_all_together_and_uninstalled_one_by_one(environment, plugin_wheels, tmp_path):
    def pymodules(*arguments: str, code: int = 0):
        return environment.run("pymodules", *arguments, cwd=tmp_path, code=code)

    install(environment, plugin_wheels, *PACKAGES)
    try:
        listed = json.loads(pymodules("plugins", "--json").stdout)
        shown = {one["origin"].get("distribution"): one["state"] for one in listed}
        assert shown == {None: "active"} | dict.fromkeys(PACKAGES, "active")

        home = tmp_path / "data" / "experiments"
        pymodules("new", "averaged")
        with (home / "averaged" / "experiment.toml").open("a") as file:
            file.write('\n[plugins.settings.ema]\nmodules = ["encoder", "head"]\n')
        copy_text_model(tmp_path)
        pymodules("train", "averaged", "--epochs", "1")
        pymodules("train", "text_model", "-s", "train.max_steps=3")
        assert (home / "averaged/data/module_ckps/best/encoder_ema.pt").is_file()
        assert list((home / "averaged/data/tensorboard").glob("events.*"))

        uninstall(environment, "pymodules-tensorboard")
        refused = pymodules("train", "averaged", "--resume", "--epochs", "2", code=2).stderr
        assert "plugin pymodules-tensorboard:tensorboard 0.1.0 is gone" in refused
        assert "pip install pymodules-tensorboard==0.1.0" in refused
        pymodules("train", "averaged", "--resume", "--accept-changes", "--epochs", "2")

        uninstall(environment, "pymodules-ema")
        for command in (["train", "averaged", "--resume", "--epochs", "3"], ["check", "averaged"]):
            assert "pip install pymodules-ema==0.1.0" in pymodules(*command, code=2).stderr
        pymodules("train", "text_model", "--reset", "--yes", "-s", "train.max_steps=1")

        uninstall(environment, "pymodules-transformers", "pymodules-example")
        refused = pymodules("train", "text_model", "--resume", code=2).stderr
        assert "pip install pymodules-transformers==0.1.0" in refused

        uninstall(environment, "pymodules-lightning")
        pymodules("new", "plain")
        pymodules("train", "plain", "--epochs", "1")
        assert "encoder" in pymodules("ckpt", "ls", "averaged").stdout
        (builtin,) = json.loads(pymodules("plugins", "--json").stdout)
        assert builtin["name"] == "pymodules-core:directory_scanner"
    finally:
        uninstall(environment, *PACKAGES)


@pytest.mark.long
def test_everything_installs_from_wheels_into_an_empty_environment(
    core_wheel, plugin_wheels, tmp_path
):
    environment = Environment(tmp_path / "venv", sees_libraries=False)
    constraints = str(REPOSITORY / "constraints.txt")
    wheels = map(str, plugin_wheels.values())
    environment.pip("install", "-c", constraints, f"{core_wheel}[examples]", *wheels)

    environment.run("pymodules", "new", "mine", cwd=tmp_path)
    trained = environment.run("pymodules", "train", "mine", "--epochs", "1", cwd=tmp_path)

    assert "best accuracy" in trained.stdout
    plugins = json.loads(environment.run("pymodules", "plugins", "--json", cwd=tmp_path).stdout)
    assert [plugin["state"] for plugin in plugins] == ["active"] * (1 + len(PACKAGES))
