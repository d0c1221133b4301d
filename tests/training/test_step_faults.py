"""What goes wrong once a run has begun: the user's line, epoch, step, batch, whole checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from support import TINY_TASK, start_command, write_experiment

from pymodules_core import Trainer
from pymodules_core.errors import MonitorError, PymodulesError, StepError, TaskError
from pymodules_core.training.run_output.console import SilentPrinter

TASK = "data/experiments/tiny/pymodules/task.py"
TOML = "data/experiments/tiny/experiment.toml"
HERE = "(epoch 1, step 1, batch 1)"


def with_step(body: str) -> str:
    """Return a task whose ``train_step`` is on line 26, its loss on 28 and ``body`` from 29 on."""
    head, rest = TINY_TASK.split("def train_step(module_pool, batch):\n")
    lines = ["inputs, targets = batch", "loss = mse_loss(module_pool.net(inputs), targets)"]
    step = "".join(f"    {line}\n" for line in [*lines, *body.splitlines()])
    return (
        f"{head}def train_step(module_pool, batch, run):\n{step}\n\n"
        f"{rest[rest.index('def eval_step') :]}"
    )


def pools(home: Path) -> list[str]:
    return sorted(p.name for p in (home / "experiments/tiny/data/module_ckps").iterdir())


def failure(home: Path, task: str, toml: str = "") -> PymodulesError:
    """Train until the run fails and return its error, which the record has to report as well."""
    path = write_experiment(home, task=task, toml=f"[train]\nbatch_size = 16\n{toml}")
    with pytest.raises(PymodulesError) as caught:
        Trainer(path, overrides={"train.epochs": 2}, reporter=SilentPrinter()).fit()
    record = json.loads((path / "data" / "run.json").read_text())
    assert record["state"] == "failed"
    assert record["error"] == f"{type(caught.value).__name__}: {caught.value}"
    assert caught.value.exit_code == 1
    return caught.value


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            "module_pool.net(inputs) - targets",
            f"the loss of optimizer 'main' has shape [16, 1], expected one element {HERE}\n"
            "  fix: average it: loss.mean()",
        ),
        (
            "loss.detach()",
            f"the loss of optimizer 'main' has no graph, so nothing would learn {HERE}\n"
            "  fix: compute it from trained modules, without detach, item or torch.no_grad",
        ),
        (
            "loss.item()",
            f"the loss of optimizer 'main' is float, expected a tensor {HERE}\n"
            "  fix: give the loss tensor itself, not loss.item()",
        ),
        (
            "loss, 1.0",
            f"the loss of optimizer 'main' is tuple, expected a tensor {HERE}\n"
            "  fix: give the tensor alone; other numbers are metrics",
        ),
        (
            "None",
            f'train_step returns None {HERE}\n  fix: return the loss, or {{"loss": loss, ...}}',
        ),
        (
            "{'loss': None}",
            f"train_step returns None as 'loss' {HERE}\n  fix: give the loss tensor",
        ),
        (
            "{'los': loss, 'accuracy': 1.0}",
            f"train_step returns a dict without 'loss'; it has: los, accuracy {HERE}\n"
            '  closest match: los\n  fix: return {"loss": loss, ...}',
        ),
        (
            "{'loss': loss, 'accuracy': targets}",
            f"metric 'accuracy' has shape [16, 1], expected one number {HERE}\n"
            "  fix: average it: value.mean()",
        ),
        (
            "{'loss': loss, 'accuracy': 'high'}",
            "metric 'accuracy' is str, expected a number, a one-element tensor or an object with "
            f"update, compute and reset {HERE}\n"
            "  fix: return a mean: value.mean()",
        ),
        (
            "{'loss': loss, 3: 1.0}",
            f"a metric is called 3, expected str {HERE}\n  fix: call it '3'",
        ),
    ],
)
def test_what_a_step_returns_and_none_can_use_is_named_at_its_def(home, result, message):
    error = failure(home, with_step(f"return {result}"))

    assert isinstance(error, TaskError)
    assert str(error) == f"{TASK}:26: {message}"


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        (
            "with run.optimize('mian') as step:\n    step.loss = loss",
            29,
            f"run.optimize: there is no optimizer 'mian'; there are: main {HERE}\n"
            "  closest match: main\n  fix: name one that optimizers returns",
        ),
        (
            "with run.optimize(1) as step:\n    step.loss = loss",
            29,
            f"run.optimize: there is no optimizer 1; there are: main {HERE}\n"
            "  fix: name one that optimizers returns",
        ),
        (
            "with run.optimize() as step:\n    with run.optimize() as inner:\n        pass",
            30,
            f"run.optimize('main') is inside the block of run.optimize('main') {HERE}\n"
            "  fix: close the first block before the second",
        ),
        (
            "with run.optimize() as step:\n    pass",
            29,
            f"run.optimize('main') ended without a loss {HERE}\n"
            "  fix: set step.loss, or call step.backward(loss), inside the block",
        ),
        (
            "step = run.optimize()\nstep.loss = loss",
            26,
            f"run.optimize('main') is called without 'with', so nothing would learn {HERE}\n"
            '  fix: with run.optimize("main") as step: step.loss = ...',
        ),
        (
            "first = run.optimize()\nwith first, run.optimize() as second:\n    pass",
            30,
            f"run.optimize('main') is inside the block of run.optimize('main') {HERE}\n"
            "  fix: close the first block before the second",
        ),
        (
            "first, second = run.optimize(), run.optimize()",
            29,
            f"run.optimize('main') is called without 'with', so nothing would learn {HERE}\n"
            '  fix: with run.optimize("main") as step: step.loss = ...',
        ),
        (
            "with run.optimize() as step:\n    step.loss = loss\nreturn loss",
            26,
            f"train_step returns Tensor, and run.optimize took its losses already {HERE}\n"
            "  fix: return nothing or a dict of metrics; a further loss needs a block",
        ),
        (
            "run.gather(loss)\nreturn loss",
            29,
            "run.gather takes a tensor of shape (samples, ...), and got one of shape () "
            f"{HERE}\n"
            "  fix: give it one row a sample; what is averaged over samples needs no gather",
        ),
        (
            "run.log('accuracy', targets)\nreturn loss",
            29,
            f"metric 'accuracy' has shape [16, 1], expected one number {HERE}\n"
            "  fix: average it: value.mean()",
        ),
    ],
)
def test_a_wrong_use_of_run_is_named_where_it_is(home, body, line, message):
    assert str(failure(home, with_step(body))) == f"{TASK}:{line}: {message}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", "eval_step raises ZeroDivisionError: division by zero {place}"),
        (
            "run.optimize()",
            "run.optimize('main') is in eval_step, which computes no gradients {place}\n"
            "  fix: optimize in train_step",
        ),
    ],
)
def test_an_eval_step_that_raises_names_epoch_and_batch(home, body, message):
    task = TINY_TASK.replace(
        "def eval_step(module_pool, batch):\n",
        f"def eval_step(module_pool, batch, run):\n    {body}\n",
    )

    assert str(failure(home, task)) == f"{TASK}:32: {message.format(place='(epoch 0, batch 1)')}"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise SystemExit", "SystemExit"),
        ("next(iter([]))", "StopIteration"),
        (
            "module_pool.net(inputs[:, :3])",
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (16x3 and 4x1)",
        ),
    ],
)
def test_a_step_that_raises_or_exits_names_line_and_step(home, body, reason):
    error = failure(home, with_step(f"if run.step == 4:\n    {body}\nreturn loss"))

    assert isinstance(error, StepError)
    assert str(error) == f"{TASK}:30: train_step raises {reason} (epoch 2, step 5, batch 2)"


def test_a_monitor_that_is_not_a_metric_is_named_with_its_line_and_the_metrics(home):
    task = TINY_TASK.replace('return {"loss": ', 'return {"acc": 0.5, "loss": ')

    path = write_experiment(home, task=task, toml='[train]\nseed = 1\nmonitor = "accc"\n')

    with pytest.raises(MonitorError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()

    error = caught.value
    assert (error.key, error.found) == ("train.monitor", "accc")
    assert str(error) == (
        f"{TOML}:3: train.monitor: 'accc' is not among the metrics: acc, loss\n"
        "  closest match: acc\n"
        '  fix: [train] monitor = "acc", or return it from eval_step'
    )
    assert error.exit_code == 2
    assert not (path / "data").exists()


def test_a_monitor_that_is_not_a_metric_puts_the_run_it_was_to_replace_back(home):
    path = write_experiment(home)
    Trainer(path, reporter=SilentPrinter()).fit()
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    wrong = Trainer(
        path, overrides={"train.monitor": "acc"}, existing="reset", reporter=SilentPrinter()
    )

    with pytest.raises(MonitorError):
        wrong.fit()

    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_scheduler_that_raises_after_an_epoch_is_named_by_the_users_line(home):
    schedulers = (
        "def schedulers(optimizers):\n"
        "    rate = torch.optim.lr_scheduler.LambdaLR\n"
        "    return rate(optimizers['main'], lambda epoch: 1 / (2 - epoch))\n"
    )

    error = failure(home, f"{TINY_TASK}\n\n{schedulers}")

    assert isinstance(error, StepError)
    assert str(error) == (
        f"{TASK}:38: schedulers raises ZeroDivisionError: division by zero (epoch 2)"
    )


def test_a_run_failed_hook_that_raises_does_not_hide_why_the_run_failed(home, caplog):
    hook = "def run_failed(run, error):\n    raise OSError('no mail')\n"

    error = failure(home, with_step("1 / 0") + f"\n{hook}")

    assert str(error) == f"{TASK}:29: train_step raises ZeroDivisionError: division by zero {HERE}"
    assert caplog.messages == [f"{TASK}:37: run_failed raises OSError: no mail"]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_leaves_every_pool_as_last_committed(home, value):
    # The hook notes what is on disk after each commit; the loss breaks in the fifth of six steps.
    task = with_step(f"return loss * (float('{value}') if run.step == 4 else 1)") + (
        "\n\nimport shutil\n\n\ndef checkpoint_committed(run):\n"
        "    pools = run.data_dir / 'module_ckps'\n"
        "    shutil.copytree(pools, run.data_dir.parent / 'noted', dirs_exist_ok=True)\n"
    )

    error = failure(home, task, "[checkpoints]\nevery_n_steps = 1\nasynchronous = false\n")

    assert error.found == pytest.approx(float(value), nan_ok=True)
    noted = home / "experiments" / "tiny" / "noted"
    for pool in ("init", "last", "best", "epoch_1"):
        kept = (home / "experiments/tiny/data/module_ckps" / pool / "net.pt").read_bytes()
        assert kept == (noted / pool / "net.pt").read_bytes()
        assert torch.load(noted / pool / "net.pt", weights_only=True)["weight"].isfinite().all()


@pytest.mark.long
def test_a_loss_that_is_not_finite_in_one_of_two_processes_ends_both_before_best_moves(home):
    factor = "float('nan') if (run.rank, run.step) == (1, 4) else 1"
    path = write_experiment(home, task=with_step(f"return loss * ({factor})"))

    result = start_command("train", "tiny", "--nproc", "2")

    assert result.returncode == 1
    assert result.stderr == (
        f"error: process 1: {TASK}:26: the loss of optimizer 'main' is nan (epoch 2, step 5, batch "
        '2)\n  fix: lower the learning rate, set clip_norm, or [train] on_nonfinite = "skip"\n'
    )
    best, epoch_1, last = (
        torch.load(path / "data/module_ckps" / pool / "net.pt", weights_only=True)["weight"]
        for pool in ("best", "epoch_1", "last")
    )
    assert torch.equal(best, epoch_1)
    assert torch.equal(last, epoch_1)


def test_an_interrupt_before_the_run_passes_through_and_writes_nothing(home):
    path = write_experiment(
        home, task=TINY_TASK.replace("return SGD", "raise KeyboardInterrupt\n    return SGD")
    )

    with pytest.raises(KeyboardInterrupt):
        Trainer(path, reporter=SilentPrinter()).fit()

    assert not (path / "data").exists()


def test_a_loss_that_reaches_no_parameter_of_its_optimizer_is_reported_once(home, caplog):
    body = "return (module_pool.net(inputs).detach() * inputs.requires_grad_()).mean()"
    path = write_experiment(home, task=with_step(body))

    Trainer(path, reporter=SilentPrinter()).fit()

    assert [record.getMessage() for record in caplog.records] == [
        "the loss of optimizer 'main' reaches none of its parameters: nothing learns. Fix: compute "
        "it from the modules whose parameters the optimizer has, without detach"
    ]


@pytest.mark.parametrize("body", ["return targets", "raise SystemExit(0)"])
def test_a_failed_run_exits_with_1_and_one_message(home, body):
    write_experiment(home, task=with_step(body))

    result = start_command("train", "tiny")

    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {TASK}:")
    assert "Traceback" not in result.stderr
    assert "Traceback" not in result.stdout


def test_an_invalid_task_exits_with_2_and_one_message(home):
    write_experiment(home, task=TINY_TASK.replace("def train_step", "def train_stp"))

    result = start_command("train", "tiny")

    assert result.returncode == 2
    assert result.stderr == (
        f"error: {TASK}:26: function 'train_stp' is not a hook, and 'train_step' is missing\n"
        "  closest match: train_step\n"
        "  fix: rename it to 'train_step', or to something less like it if it is a helper\n"
    )
