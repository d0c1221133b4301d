"""What comes when in a run: updates, hooks, commits, evaluations, limits, and its end."""

import json
import logging
import time
from pathlib import Path

import pytest
from support import TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.errors import ExistingRunError, StepError
from pymodules_core.training.run_output.console import SilentPrinter

ORDER_HOOKS = """

order = []


def train_step_finished(run, stepped):
    order.append(("step", run.step, sorted(stepped), run.module_pool.net.weight.sum().item()))


def checkpoint_committed(run, receipt):
    order.append(("commit", run.step, receipt.pools, run.module_pool.net.weight.sum().item()))


def run_finished(run):
    import json
    (run.data_dir / "order.json").write_text(json.dumps(order))
"""
AS_GENERATOR = """

def train_data():
    from torch.utils.data import DataLoader
    yield from DataLoader(dataset(1), batch_size=10)
"""
PLATEAU = """

seen = []


def schedulers(optimizers):
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    class Watching(ReduceLROnPlateau):
        def step(self, metrics):
            seen.append(float(metrics))
            super().step(metrics)

    return Watching(optimizers["main"])


def run_finished(run):
    import json
    (run.data_dir / "seen.json").write_text(json.dumps(seen))
"""


def fit(path: Path, **overrides):
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return Trainer(path, overrides=keys, reporter=SilentPrinter()).fit()


def metrics_log(path: Path) -> list[dict]:
    lines = (path / "data" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_window_cut_short_updates_before_the_hook_and_commit_of_its_step(tmp_path):
    path = write_experiment(
        tmp_path,
        task=TINY_TASK + ORDER_HOOKS,
        toml="[train]\nepochs = 1\nbatch_size = 10\neval_at_start = false\n"
        "[optimizers.main]\naccumulate = 3\n[checkpoints]\nevery_n_steps = 4\n",
    )

    fit(path)

    order = json.loads((path / "data" / "order.json").read_text())
    steps = [entry for entry in order if entry[0] == "step"]
    assert [stepped for _, _, stepped, _ in steps] == [[], [], ["main"], ["main"]]
    mid_epoch = order[order.index(steps[-1]) + 1]
    assert mid_epoch[:3] == ["commit", 4, ["last"]]
    assert {entry[3] for entry in order[order.index(steps[-1]) :]} == {steps[-1][3]}


def test_max_steps_cuts_a_window_short_before_the_hook_too(tmp_path):
    path = write_experiment(
        tmp_path,
        task=TINY_TASK + ORDER_HOOKS,
        toml="[train]\nmax_steps = 2\nbatch_size = 10\n[optimizers.main]\naccumulate = 3\n",
    )

    fit(path)

    order = json.loads((path / "data" / "order.json").read_text())
    assert [entry[2] for entry in order if entry[0] == "step"] == [[], ["main"]]


def test_data_of_unknown_length_announces_the_last_update_in_a_call_of_its_own(tmp_path):
    path = write_experiment(
        tmp_path,
        task=TINY_TASK + AS_GENERATOR + ORDER_HOOKS,
        toml="[train]\nepochs = 1\n[optimizers.main]\naccumulate = 3\n",
    )

    fit(path)

    order = json.loads((path / "data" / "order.json").read_text())
    steps = [entry[1:3] for entry in order if entry[0] == "step"]
    assert steps == [[1, []], [2, []], [3, ["main"]], [4, []], [4, ["main"]]]


def test_a_scheduler_that_compares_sees_evaluations_only(tmp_path):
    path = write_experiment(
        tmp_path,
        task=TINY_TASK + PLATEAU,
        toml="[train]\nepochs = 5\nbatch_size = 16\neval_every_n_epochs = 2\n",
    )

    fit(path)

    evaluated = [row for row in metrics_log(path) if row["phase"] == "eval" and row["epoch"]]
    assert [row["epoch"] for row in evaluated] == [2, 4, 5]
    seen = json.loads((path / "data" / "seen.json").read_text())
    assert seen == [row["metrics"]["loss"] for row in evaluated]


@pytest.mark.parametrize(
    ("every", "eval_every", "epochs"), [(2, 1, [2, 4, 6]), (5, 2, [6]), (3, 2, [4, 7])]
)
def test_epoch_pools_come_at_the_first_evaluation_that_is_due(tmp_path, every, eval_every, epochs):
    path = write_experiment(tmp_path)

    result = fit(
        path,
        train__epochs=7,
        train__eval_every_n_epochs=eval_every,
        checkpoints__every_n_epochs=every,
    )

    assert [p for p in result.pools if p.startswith("epoch_")] == [f"epoch_{n}" for n in epochs]


def test_minutes_that_run_out_in_an_evaluation_begin_no_epoch(tmp_path, monkeypatch):
    task = TINY_TASK.replace(
        'return {"loss"',
        "import time\n"
        "    clock = time.monotonic\n"
        "    time.monotonic = lambda: clock() + 3600\n"
        '    return {"loss"',
    )
    monkeypatch.setattr("time.monotonic", time.monotonic)  # so that it is put back
    path = write_experiment(tmp_path, task=task)

    result = fit(path, train__epochs=5, train__max_minutes=60.0, train__eval_at_start=False)

    assert (result.epochs, result.steps) == (1, 3)
    assert result.stop_reason == "max_minutes = 60 reached"
    assert [(row["epoch"], row["phase"]) for row in metrics_log(path)] == [
        (1, "train"),
        (1, "eval"),
    ]


def test_a_skipped_loss_is_left_out_of_the_averages(tmp_path):
    task = TINY_TASK.replace(
        "def train_step(module_pool, batch):",
        "def train_step(module_pool, batch, run):\n    run.log('seen', run.step)",
    ).replace(
        "return mse_loss(module_pool.net(inputs), targets)",
        "factor = float('nan') if run.step == 1 else 1.0\n"
        "    return mse_loss(module_pool.net(inputs), targets) * factor",
        1,
    )
    path = write_experiment(tmp_path, task=task)

    fit(path, train__epochs=1, train__on_nonfinite="skip", train__batch_size=20)

    (row,) = [row for row in metrics_log(path) if row["phase"] == "train"]
    assert row["metrics"]["loss"] > 0
    assert row["metrics"]["seen"] == 0
    record = json.loads((path / "data" / "run.json").read_text())
    assert record["skipped_steps"] == 1


def test_a_record_that_cannot_be_written_does_not_hide_why_the_run_failed(tmp_path, caplog):
    task = TINY_TASK.replace(
        "def train_step(module_pool, batch):",
        "def train_step(module_pool, batch, run):\n"
        "    (run.data_dir / 'run.json').unlink()\n"
        "    (run.data_dir / 'run.json').mkdir()\n"
        "    raise ValueError('the real one')",
    )
    path = write_experiment(tmp_path, task=task + "\n\ndef run_failed(run):\n    print('told')\n")

    with (
        caplog.at_level(logging.WARNING, logger="pymodules_core"),
        pytest.raises(StepError) as caught,
    ):
        fit(path)

    assert "train_step raises ValueError: the real one" in str(caught.value)
    (warning,) = caplog.messages
    assert "run.json: cannot be written: Is a directory" in warning


def test_a_run_that_another_process_began_first_is_left_alone(tmp_path):
    task = TINY_TASK + (
        "\n\ndef weights_ready(run):\n"
        "    (run.data_dir / 'module_ckps' / 'last').mkdir(parents=True)\n"
        "    (run.data_dir / 'run.json').write_text('of the other')\n"
    )
    path = write_experiment(tmp_path, task=task)

    with pytest.raises(ExistingRunError) as caught:
        fit(path)

    assert "holds a run already: last" in str(caught.value)
    assert (path / "data" / "run.json").read_text() == "of the other"
