"""Mistakes in ``task.py`` that are reported before a run begins: one message, nothing written."""

import pytest
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.errors import PymodulesError, SettingsError, TaskError
from pymodules_core.training.run_output.console import SilentPrinter

TASK = "data/experiments/tiny/pymodules/task.py"
TOML = "data/experiments/tiny/experiment.toml"
ARGUMENTS = "it may take module_pool, batch, run, config"
OPTIMIZER = "return SGD(module_pool.net.parameters(), lr=0.1)"
FROZEN = TINY_MODULE.replace("{}", '{"frozen": True}')


def edited(*replacements: tuple[str, str], more: str = "") -> str:
    task = TINY_TASK
    for old, new in replacements:
        assert old in task
        task = task.replace(old, new)
    return f"{task}\n{more}"


def with_optimizers(body: str) -> str:
    return edited((OPTIMIZER, body))


def refusal(home, task: str, *, toml: str = "", **files) -> PymodulesError:
    """Train and return the error, which has to come before anything is written."""
    path = write_experiment(home, task=task, toml=toml, **files)
    with pytest.raises(PymodulesError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()
    assert not (path / "data").exists()
    assert caught.value.exit_code == 2
    return caught.value


def test_a_task_that_is_called_otherwise_is_the_closest_match(home):
    path = write_experiment(home)
    (path / "pymodules" / "task.py").rename(path / "pymodules" / "taks.py")

    with pytest.raises(TaskError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()

    assert (caught.value.what, caught.value.closest) == ("there is no task", "taks.py")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "def train_step",
            "def _helper",
            f"{TASK}: the task lacks train_step\n  fix: write def train_step(...) in it",
        ),
        (
            "def train_step",
            "def training_step",
            f"{TASK}: the task lacks train_step\n"
            "  closest match: training_step\n"
            "  fix: write def train_step(...) in it",
        ),
        (
            "def eval_step",
            "def _helper",
            f"{TASK}: the task lacks eval_step\n"
            "  fix: write def eval_step(...) in it, or remove eval_data",
        ),
        (
            "def eval_data",
            "def _helper",
            f"{TASK}: the task lacks eval_data\n"
            "  fix: write def eval_data(...) in it, or remove eval_step",
        ),
    ],
)
def test_a_function_that_is_missing_is_named(home, old, new, message):
    error = refusal(home, edited((old, new)))

    assert isinstance(error, TaskError)
    assert str(error) == message


def test_all_missing_functions_are_named_at_once(home):
    error = refusal(home, "def eval_step():\n    return 0\n")

    assert error.found == ["train_data", "optimizers", "train_step", "eval_data"]
    assert str(error) == (
        f"{TASK}: the task lacks train_data, optimizers, train_step, eval_data\n"
        "  fix: write def train_data(...) in it"
    )


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("def train_step", "def train_stp", 26),
        ("def train_step", "@torch.enable_grad()\ndef train_stp", 26),
        ("def optimizers", "def optimizer", 22),
    ],
)
def test_a_misspelt_function_is_a_slip_and_no_helper(home, old, new, line):
    wrong, right = new.rpartition(" ")[2], old.rpartition(" ")[2]

    error = refusal(home, edited((old, new)))

    assert (error.found, error.closest) == (wrong, right)
    assert str(error) == (
        f"{TASK}:{line}: function {wrong!r} is not a hook, and {right!r} is missing\n"
        f"  closest match: {right}\n"
        f"  fix: rename it to {right!r}, or to something less like it if it is a helper"
    )


def test_a_name_far_from_any_hook_is_a_helper(home):
    path = write_experiment(home, task=edited(more="def train_set():\n    pass\n"))

    assert Trainer(path, reporter=SilentPrinter()).fit().epochs > 0


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ("epoch_finished = 3\n", "int"),
        ("import functools\n\n\nepoch_finished = functools.partial(print)\n", "partial"),
        ("class epoch_finished:\n    pass\n", "type"),
    ],
)
def test_a_hook_that_is_not_a_function_is_refused_with_its_line(home, more, kind):
    line = TINY_TASK.count("\n") + 2 + more[: more.index("epoch_finished")].count("\n")

    error = refusal(home, edited(more=more))

    assert str(error) == (
        f"{TASK}:{line}: epoch_finished is {kind}, expected a function\n"
        "  fix: write def epoch_finished(...)"
    )


@pytest.mark.parametrize(
    ("signature", "problem", "advice"),
    [
        (
            "module_pool, bach",
            "wants argument 'bach'",
            "  closest match: batch\n  fix: rename it to 'batch'",
        ),
        ("model, batch", "wants argument 'model'", "  fix: remove it, or give it a default"),
        (
            "*args",
            "takes *args, and hooks pass arguments by name",
            "  fix: write the ones it needs instead of *args",
        ),
        (
            "module_pool, batch, config=None",
            "argument 'config' has a default, and such arguments are never passed",
            "  fix: remove the default of 'config'",
        ),
        (
            "module_pool, *, batch",
            "argument 'batch' is keyword-only, and such arguments are never passed",
            "  fix: remove the * before it",
        ),
    ],
)
def test_an_argument_that_no_one_would_pass_is_refused(home, signature, problem, advice):
    error = refusal(home, edited(("train_step(module_pool, batch)", f"train_step({signature})")))

    assert str(error) == f"{TASK}:26: train_step: {problem}; {ARGUMENTS}\n{advice}"


def test_a_decorated_function_is_named_by_its_own_line(home):
    error = refusal(
        home, edited(("def train_step(", "@torch.enable_grad()\ndef train_step(bach, "))
    )

    assert (error.file.name, error.line, error.found) == ("task.py", 26, "bach")


def test_an_imported_step_is_checked_where_it_is_written(home):
    steps = "\ndef train_step(module_pool, bach):\n    pass\n"

    error = refusal(
        home,
        edited(("def train_step", "def _old"), more="from modules._steps import train_step\n"),
        modules={"net": TINY_MODULE, "_steps": steps},
    )

    assert str(error) == (
        "data/experiments/tiny/pymodules/modules/_steps.py:2: train_step: wants argument 'bach'; "
        f"{ARGUMENTS}\n  closest match: batch\n  fix: rename it to 'batch'"
    )


def test_a_helpers_argument_with_a_default_is_its_own(home):
    task = edited(("train_step(module_pool, batch)", "train_step(module_pool, batch, scale=1)"))

    assert Trainer(write_experiment(home, task=task), reporter=SilentPrinter()).fit().steps > 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "pass",
            f"{TASK}:22: optimizers returns None, expected a torch.optim.Optimizer or a dict of "
            'them by name\n  fix: return the optimizer, or {"name": optimizer, ...}',
        ),
        (
            OPTIMIZER.replace("SGD(", "[SGD(") + "]",
            f"{TASK}:22: optimizers returns list, expected a torch.optim.Optimizer or a dict of "
            'them by name\n  fix: return the optimizer, or {"name": optimizer, ...}',
        ),
        ("return {}", f"{TASK}:22: optimizers returns an empty dict\n  fix: return an optimizer"),
        (
            "return {'a': 3}",
            f"{TASK}:22: optimizers gives int for 'a', expected a torch.optim.Optimizer\n"
            "  fix: give an instance, such as torch.optim.Adam(parameters)",
        ),
        (
            "return {1: SGD(module_pool.net.parameters(), lr=0.1)}",
            f"{TASK}:22: optimizers gives the name 1, expected str\n  fix: name it '1'",
        ),
        (
            "return SGD(module_pool.net.parameters(), lr=float('nan'))",
            f"{TASK}:22: optimizer 'main' has the learning rate nan\n  fix: give it a finite one",
        ),
        (
            "return SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1)",
            f"{TASK}:22: optimizer 'main' owns a parameter of shape [1, 2] that is in no module of "
            "the pool, so it would never be saved\n  fix: put it into a module of the pool",
        ),
        (
            "return {n: SGD(module_pool.net.parameters(), lr=0.1) for n in ('a', 'b')}",
            f"{TASK}:22: optimizers 'a' and 'b' both own net.weight\n"
            "  fix: give each parameter to one optimizer",
        ),
        (
            "return SGD(module_pool.net.parameters(), lr=-1.0)",
            f"{TASK}:23: optimizers raises ValueError: Invalid learning rate: -1.0",
        ),
        (
            "return SGD(module_pool.nett.parameters(), lr=0.1)",
            f"{TASK}:23: no module 'nett' in the pool; there are: net\n  closest match: net\n"
            "  fix: write 'net'",
        ),
    ],
    ids=lambda value: "" if value.startswith(TASK) else value,
)
def test_optimizers_that_cannot_train_the_pool_are_refused(home, body, message):
    assert str(refusal(home, with_optimizers(body))) == message


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
def test_an_optimizer_that_owns_a_parameter_twice_is_refused(home):
    both = "[*module_pool.net.parameters(), *module_pool.twin.parameters()]"

    error = refusal(
        home,
        with_optimizers(f"return SGD({both}, lr=0.1)"),
        modules={"net": TINY_MODULE, "twin": "from modules.net import module\nsettings = {}\n"},
    )

    assert str(error) == (
        f"{TASK}:22: optimizer 'main' owns net.weight twice\n"
        "  fix: give it each parameter once; modules may share some"
    )


def test_an_optimizer_over_a_frozen_module_is_refused(home):
    error = refusal(
        home,
        with_optimizers("return SGD(module_pool.old.parameters(), lr=0.1)"),
        modules={"net": TINY_MODULE, "old": FROZEN},
    )

    assert error.found == "old.weight"
    assert str(error) == (
        f"{TASK}:22: optimizer 'main' owns old.weight, and module 'old' is frozen\n"
        "  fix: leave it out of the optimizer, or set \"frozen\": False for 'old'"
    )


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            "[optimizers.mian]\naccumulate = 2\n",
            f"{TOML}:1: optimizers.mian: there is no optimizer 'mian'; there are: main\n"
            "  closest match: main\n  fix: write [optimizers.main]",
        ),
        (
            "[optimizers.main]\nschedule = 'step'\n",
            f"{TOML}:2: optimizers.main.schedule: 'step' does not fit ReduceLROnPlateau, which "
            'needs the metric of an epoch\n  fix: schedule = "epoch"',
        ),
    ],
)
def test_optimizer_settings_that_do_not_fit_are_named_in_the_toml(home, toml, message):
    plateau = "torch.optim.lr_scheduler.ReduceLROnPlateau(optimizers['main'])"
    schedulers = f"def schedulers(optimizers):\n    return {plateau}\n"

    error = refusal(home, edited(more=schedulers), toml=toml)

    assert isinstance(error, SettingsError)
    assert str(error) == message


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            "3",
            "schedulers gives int for 'main', expected one of torch.optim.lr_scheduler\n"
            "  fix: give an instance, such as lr_scheduler.StepLR(optimizer, 10)",
        ),
        (
            "{'mian': ConstantLR(optimizers['main'])}",
            "schedulers gives one for 'mian', and there is no such optimizer; there are: main\n"
            "  closest match: main\n  fix: name each as its optimizer",
        ),
    ],
)
def test_schedulers_that_fit_no_optimizer_are_refused(home, result, message):
    more = (
        "from torch.optim.lr_scheduler import ConstantLR\n\n\n"
        f"def schedulers(optimizers):\n    return {result}\n"
    )

    assert str(refusal(home, edited(more=more))) == f"{TASK}:38: {message}"
