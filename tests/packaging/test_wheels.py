"""The core's wheel and the example's, built and installed by pip into a fresh environment."""

import json
import zipfile
from pathlib import Path

import pytest
from wheel_cases import REPOSITORY, Environment, build_wheel, write_package

MODULE = """
from torch import nn

module = nn.Conv2d(1, 1, 3, padding=1)
settings = {}
"""
TASK = """
import torch
from torch.optim import SGD
from torch.utils.data import TensorDataset


def train_data():
    return TensorDataset(torch.rand(8, 1, 6, 6))


def optimizers(module_pool):
    return SGD(module_pool.blur.parameters(), 0.1)


def train_step(module_pool, batch):
    edges = module_pool.example_edges
    return (edges(module_pool.blur(batch[0])) - edges(batch[0])).abs().mean()
"""
BROKEN = {
    "acme-raises": "raise ValueError('boom')",
    "acme-twice": """
        from pymodules_core import ModuleSpec, hookimpl

        @hookimpl
        def provide_module(context):
            return ModuleSpec(name="example_edges", factory="torch.nn:Identity")
        """,
    "acme-wrong": """
        from pymodules_core import hookimpl

        @hookimpl
        def provide_module(context):
            return 3
        """,
    "acme-misspelt": """
        from pymodules_core import hookimpl

        @hookimpl
        def provide_modules(context):
            return None
        """,
}


@pytest.fixture
def experiment(tmp_path) -> Path:
    """An experiment that needs the module of pymodules-example; gives the working directory."""
    modules = tmp_path / "data" / "experiments" / "edges" / "pymodules" / "modules"
    modules.mkdir(parents=True)
    (modules / "blur.py").write_text(MODULE)
    (modules.parent / "task.py").write_text(TASK)
    return tmp_path


def listed(environment: Environment, cwd: Path) -> dict[str, dict[str, object]]:
    output = environment.run("pymodules", "list", "edges", "--json", cwd=cwd).stdout
    return {module["name"]: module for module in json.loads(output)}


def test_the_wheel_holds_the_templates_and_nothing_a_run_wrote(core_wheel):
    names = zipfile.ZipFile(core_wheel).namelist()

    templates = [name for name in names if name.startswith("pymodules_core/templates/")]
    for example in ("digits_classifier", "digits_distill", "digits_gan"):
        assert f"pymodules_core/templates/{example}/experiment.toml" in templates
        assert f"pymodules_core/templates/{example}/pymodules/task.py" in templates
    assert "pymodules_core/templates/pymodules-example/LICENSE" in templates
    assert not [n for n in names if n.endswith((".pt", ".pyc", "run.json", "metrics.jsonl"))]


def test_an_installed_wheel_writes_an_experiment_from_its_templates(environment, tmp_path):
    environment.run("pymodules", "new", "mine", "--template", "gan", cwd=tmp_path)

    folder = tmp_path / "data" / "experiments" / "mine"
    source = REPOSITORY / "data" / "experiments" / "digits_gan"
    for file in ("experiment.toml", "pymodules/task.py", "pymodules/modules/generator.py"):
        assert (folder / file).read_bytes() == (source / file).read_bytes()


def test_a_package_joins_the_pool_trains_and_is_gone_after_uninstall(
    environment, example_wheel, experiment
):
    environment.pip("install", "--no-index", "--no-deps", str(example_wheel))

    edges = listed(environment, experiment)["example_edges"]
    assert edges["origin"] == {
        "kind": "distribution",
        "distribution": "pymodules-example",
        "version": "0.1.0",
        "entry_point": "example",
    }
    assert edges["frozen"] is True
    environment.run("pymodules", "train", "edges", "--epochs", "1", cwd=experiment)
    pools = experiment / "data" / "experiments" / "edges" / "data" / "module_ckps"
    assert [file.name for file in (pools / "frzn").iterdir()] == ["example_edges.pt"]
    assert [file.name for file in (pools / "last").iterdir()] == ["blur.pt"]

    environment.pip("uninstall", "--yes", "pymodules-example")

    assert list(listed(environment, experiment)) == ["blur"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acme-raises", "plugin acme-raises 1.0 (plugin): import failed: ValueError: boom"),
        (
            "acme-wrong",
            "plugin acme-wrong 1.0 (plugin): provide_module failed: TypeError: "
            "provide_module returned builtins.int, expected ModuleSpec",
        ),
        (
            "acme-misspelt",
            "plugin acme-misspelt 1.0 (plugin): hooks failed: no hook is called 'provide_modules'",
        ),
    ],
)
def test_a_broken_package_is_one_message_and_the_good_one_still_trains(
    environment, example_wheel, experiment, tmp_path, name, message
):
    broken = build_wheel(write_package(tmp_path / "source", name, BROKEN[name]), tmp_path / "dist")
    environment.pip("install", "--no-index", "--no-deps", str(example_wheel), str(broken))
    try:
        result = environment.run("pymodules", "train", "edges", "--epochs", "1", cwd=experiment)
        assert result.stderr.count("warning: ") == 1
        assert result.stderr.startswith(f"warning: {message}")
        assert "example_edges" in listed(environment, experiment)
    finally:
        environment.pip("uninstall", "--yes", "pymodules-example", name)


def test_two_packages_with_one_name_are_refused_until_one_is_picked(
    environment, example_wheel, experiment, tmp_path
):
    twice = build_wheel(
        write_package(tmp_path / "source", "acme-twice", BROKEN["acme-twice"]), tmp_path / "dist"
    )
    environment.pip("install", "--no-index", "--no-deps", str(example_wheel), str(twice))
    try:
        result = environment.run("pymodules", "train", "edges", cwd=experiment, code=2)
        assert result.stderr == (
            "error: module 'example_edges' is provided twice:\n"
            "  - acme-twice 1.0 (plugin)\n"
            "  - pymodules-example 0.1.0 (example)\n"
            "  fix: pick one in experiment.toml:  [modules.override]  "
            'example_edges = "pymodules-example"\n'
        )
        toml = experiment / "data" / "experiments" / "edges" / "experiment.toml"
        toml.write_text('[modules.override]\nexample_edges = "pymodules-example"\n')
        environment.run("pymodules", "train", "edges", "--epochs", "1", cwd=experiment)
    finally:
        environment.pip("uninstall", "--yes", "pymodules-example", "acme-twice")
