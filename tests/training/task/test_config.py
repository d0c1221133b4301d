"""``Config``: a class that types ``[task]``, and what is said where one of both does not fit."""

import pytest
from support import TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.errors import PymodulesError, SettingsError, TaskError
from pymodules_core.training.run_output.console import SilentPrinter

TASK = "data/experiments/tiny/pymodules/task.py"
TOML = "data/experiments/tiny/experiment.toml"
# The line of ``Config`` in a task made by ``with_config``.
LINE = TINY_TASK.count("\n") + 6


def with_config(fields: str, *, decorator: str = "@attrs.frozen") -> str:
    return f"{TINY_TASK}\nimport attrs\n\n\n{decorator}\nclass Config:\n    {fields}\n"


def refusal(home, task: str, table: str = "") -> PymodulesError:
    """Train and return the error, which has to come before anything is written."""
    path = write_experiment(home, task=task, toml=f"[task]\n{table}\n")
    with pytest.raises(PymodulesError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()
    assert not (path / "data").exists()
    assert caught.value.exit_code == 2
    return caught.value


def received(home, task: str, table: str = "", argument: str = "config") -> None:
    """Train with an ``optimizers`` that prints what it got."""
    task = task.replace(
        "def optimizers(module_pool):",
        f"def optimizers(module_pool, config):\n    print({argument})",
    )
    path = write_experiment(home, task=task, toml=f"[task]\n{table}\n")
    Trainer(path, overrides={"train.epochs": 1}, reporter=SilentPrinter()).fit()


@pytest.mark.parametrize("decorator", ["@attrs.frozen", "@attrs.define", "@dataclass"])
def test_a_config_gives_its_defaults_and_what_the_table_says(home, capsys, decorator):
    task = with_config("lr: float = 0.5\n    depth: int = 2", decorator=decorator)

    received(
        home,
        task.replace("import attrs\n", "import attrs\nfrom dataclasses import dataclass\n"),
        "depth = 3",
        "config.lr, config.depth",
    )

    assert capsys.readouterr().out == "0.5 3\n"


def test_without_a_config_class_the_table_comes_as_it_is(home, capsys):
    received(home, TINY_TASK, "depth = [1, 2]")

    assert capsys.readouterr().out == "{'depth': [1, 2]}\n"


@pytest.mark.parametrize(
    ("fields", "table", "message"),
    [
        (
            "rate: float = 0.1",
            "ratte = 0.2",
            f"{TOML}:2: task.ratte: unknown key\n  closest match: rate\n"
            "  fix: write 'rate' or remove 'ratte'",
        ),
        ("rate: float", "", f"{TOML}:1: task.rate: is missing\n  fix: add 'rate'"),
        (
            "on: bool = True",
            "on = 'yes'",
            f"{TOML}:2: task.on: expected bool, found str 'yes'\n"
            "  fix: write True or False (true or false in TOML), unquoted",
        ),
        (
            "sizes: list[int] = attrs.Factory(list)",
            "sizes = [1, 'x']",
            f"{TOML}:2: task.sizes.1: expected int, found str 'x'\n"
            "  fix: write a whole number, unquoted",
        ),
        (
            "size: tuple[int, int] = (1, 2)",
            "size = [1, 2, 3]",
            f"{TOML}:2: task.size: Too many values in [1, 2, 3] to structure as tuple[int, int]",
        ),
        (
            "rate: float = attrs.field(default=0.1, validator=attrs.validators.lt(1))",
            "rate = 2",
            f"{TOML}:1: task: 'rate' must be < 1: 2.0",
        ),
    ],
)
def test_a_table_that_does_not_fit_the_config_is_refused(home, fields, table, message):
    error = refusal(home, with_config(fields), table)

    assert isinstance(error, SettingsError)
    assert str(error) == message


@pytest.mark.parametrize(
    ("definition", "kind", "fix"),
    [
        ("class Config:\n    lr = 0.1", "a plain class", "decorate it with @attrs.frozen"),
        ("Config = {'lr': 0.1}", "dict", "write @attrs.frozen class Config"),
    ],
)
def test_a_config_that_is_not_an_attrs_class_is_refused_with_its_line(home, definition, kind, fix):
    error = refusal(home, f"{TINY_TASK}\n{definition}\n")

    assert str(error) == (
        f"{TASK}:{LINE - 4}: Config is {kind}, expected an attrs class or dataclass\n  fix: {fix}"
    )


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (
            "torch.Tensor",
            "StructureHandlerNotFoundError: Unsupported type: <class 'torch.Tensor'>. "
            "Register a structure hook for it.",
        ),
        ("'Nope'", "NameError: name 'Nope' is not defined"),
    ],
)
def test_a_config_of_types_that_toml_lacks_is_the_tasks_mistake(home, annotation, reason):
    error = refusal(home, with_config(f"weight: {annotation} = None"), "weight = 1")

    assert isinstance(error, TaskError)
    assert str(error) == (
        f"{TASK}:{LINE}: Config cannot be made from [task]: {reason}\n"
        "  fix: annotate its fields with types of TOML: str, int, float, bool, list, dict"
    )
