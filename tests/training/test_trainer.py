"""A whole run: its order, its pools, its records."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.errors import ExistingRunError, NonFiniteLossError
from pymodules_core.training.run_output.console import SilentPrinter

FROZEN_NORM = """
from torch import nn

module = nn.BatchNorm1d(4)
settings = {"frozen": True}
"""
TASK_THROUGH_NORM = TINY_TASK.replace(
    "module_pool.net(inputs)", "module_pool.net(module_pool.norm(inputs))"
)


def fit(path: Path, **overrides):
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return Trainer(path, overrides=keys, reporter=SilentPrinter()).fit()


def pool_files(path: Path) -> dict[str, list[str]]:
    pools = path / "data" / "module_ckps"
    return {
        p.name: sorted(f.name for f in p.iterdir()) for p in pools.iterdir() if p.name != ".store"
    }


def load(path: Path, pool: str, module: str = "net"):
    return torch.load(path / "data" / "module_ckps" / pool / f"{module}.pt", weights_only=True)


def metrics_log(path: Path) -> list[dict]:
    lines = (path / "data" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_frozen_modules_are_in_frzn_and_all_others_in_the_other_pools(tmp_path):
    path = write_experiment(
        tmp_path, modules={"net": TINY_MODULE, "norm": FROZEN_NORM}, task=TASK_THROUGH_NORM
    )

    result = fit(path)

    assert result.pools == ("frzn", "init", "last", "best", "epoch_1", "epoch_2")
    files = pool_files(path)
    assert files.pop("frzn") == ["norm.pt"]
    assert files == {name: ["net.pt"] for name in ("init", "last", "best", "epoch_1", "epoch_2")}


def test_a_frozen_module_keeps_its_buffers_and_passes_gradients_on(tmp_path):
    path = write_experiment(
        tmp_path,
        modules={"net": TINY_MODULE, "norm": FROZEN_NORM},
        task=TINY_TASK.replace(
            "module_pool.net(inputs)",
            "module_pool.norm(module_pool.net(inputs).expand(-1, 4))[:, :1]",
        ),
    )

    fit(path)

    frozen = load(path, "frzn", "norm")
    assert torch.equal(frozen["running_mean"], torch.zeros(4))
    assert frozen["num_batches_tracked"] == 0
    assert not torch.equal(load(path, "init")["weight"], load(path, "last")["weight"])


def test_every_file_opens_in_a_process_without_this_package(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    script = (
        "import sys, torch, pathlib\n"
        f"files = sorted(pathlib.Path({str(path)!r}).rglob('module_ckps/*/*.pt'))\n"
        "for file in files:\n"
        "    state = torch.load(file, weights_only=True)\n"
        "    assert all(isinstance(v, torch.Tensor) for v in state.values())\n"
        "assert not any(name.startswith('pymodules') for name in sys.modules)\n"
        "print(len(files))"
    )

    result = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stdout.strip()) == (0, "5"), result.stderr


def test_epoch_pools_hold_the_weights_of_their_epoch(tmp_path):
    path = write_experiment(tmp_path)

    fit(path, train__epochs=3)

    assert torch.equal(load(path, "epoch_3")["weight"], load(path, "last")["weight"])
    assert not torch.equal(load(path, "epoch_1")["weight"], load(path, "epoch_2")["weight"])


def test_best_is_the_epoch_with_the_best_monitored_metric(tmp_path):
    # The metric falls, then rises: 3, 2, 1, 2, 3 for epochs 0 to 4.
    task = TINY_TASK.replace(
        'return {"loss": mse_loss(module_pool.net(inputs), targets)}',
        'return {"loss": abs(run.epoch - 2) + 1.0}',
    ).replace("def eval_step(module_pool, batch)", "def eval_step(batch, run)")
    path = write_experiment(tmp_path, task=task)

    result = fit(path, train__epochs=4)

    assert (result.best_epoch, result.best_value) == (2, 1.0)
    assert torch.equal(load(path, "best")["weight"], load(path, "epoch_2")["weight"])


def test_the_initial_weights_are_the_best_when_training_only_hurts(tmp_path):
    task = TINY_TASK.replace("lr=0.1", "lr=0.1, maximize=True")
    path = write_experiment(tmp_path, task=task)

    result = fit(path)

    assert result.best_epoch == 0
    assert torch.equal(load(path, "best")["weight"], load(path, "init")["weight"])


def test_the_metrics_log_has_a_line_for_each_loop(tmp_path):
    path = write_experiment(tmp_path)

    fit(path)

    rows = metrics_log(path)
    assert [(r["epoch"], r["step"], r["phase"]) for r in rows] == [
        (0, 0, "eval"),
        (1, 3, "train"),
        (1, 3, "eval"),
        (2, 6, "train"),
        (2, 6, "eval"),
    ]
    assert set(rows[1]["metrics"]) == {"loss"}
    assert rows[1]["learning_rates"] == {"main": 0.1}


def test_eval_metrics_are_means_over_samples_not_over_batches(tmp_path):
    # 40 samples in batches of 16, 16 and 8; the metric of a batch is its length.
    task = TINY_TASK.replace(
        'return {"loss": mse_loss(module_pool.net(inputs), targets)}',
        'return {"loss": 0.0, "length": float(len(inputs))}',
    )
    path = write_experiment(tmp_path, task=task)

    result = fit(path)

    assert result.metrics["length"] == pytest.approx((16 * 16 + 16 * 16 + 8 * 8) / 40)


def test_the_run_record_reports_how_the_run_came_about(tmp_path):
    helped = f"from modules._help import nothing\n{TINY_MODULE}"
    path = write_experiment(tmp_path, modules={"net": helped, "_help": "nothing = None\n"})

    fit(path, train__seed=7)

    run = json.loads((path / "data" / "run.json").read_text())
    assert run["state"] == "finished"
    assert (run["epoch"], run["step"], run["seed"]) == (2, 6, 7)
    assert run["overrides"] == {"train.seed": 7}
    assert run["settings"]["train"]["batch_size"] == 16
    (module,) = run["modules"]
    assert (module["name"], module["parameters"], module["frozen"]) == ("net", 5, False)
    assert module["origin"]["kind"] == "file"
    digests = {
        name: sha256((path / "pymodules" / name).read_bytes()).hexdigest()
        for name in ("modules/_help.py", "modules/net.py", "task.py")
    }
    assert run["files"] == digests
    assert module["origin"]["sha256"] == digests["modules/net.py"]
    assert run["initial_weights"] == []
    assert run["best"]["metric"] == "loss"


def test_two_runs_with_one_seed_are_equal_and_with_another_are_not(tmp_path):
    first, again, other = (write_experiment(tmp_path, name) for name in ("a", "b", "c"))

    fit(first)
    fit(again)
    fit(other, train__seed=1)

    assert torch.equal(load(first, "last")["weight"], load(again, "last")["weight"])
    assert not torch.equal(load(first, "init")["weight"], load(other, "init")["weight"])
    assert [r["metrics"] for r in metrics_log(first)] == [r["metrics"] for r in metrics_log(again)]


def test_the_eval_loop_does_not_shift_the_random_numbers_of_training(tmp_path):
    noisy = TINY_TASK.replace(
        "module_pool.net(inputs), targets)\n\n\ndef eval",
        "module_pool.net(inputs + torch.randn_like(inputs)), targets)\n\n\ndef eval",
    )
    loader = noisy.replace(
        "return dataset(2)",
        "return torch.utils.data.DataLoader(dataset(2), batch_size=4, shuffle=True)",
    )
    with_dataset = write_experiment(tmp_path, "a", task=noisy)
    with_loader = write_experiment(tmp_path, "b", task=loader)

    fit(with_dataset)
    fit(with_loader)

    assert torch.equal(load(with_dataset, "last")["weight"], load(with_loader, "last")["weight"])


def test_an_existing_run_is_refused_and_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path)
    fit(path)
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()}

    with pytest.raises(ExistingRunError) as caught:
        fit(path)

    assert str(caught.value) == (
        "experiments/tiny/data: experiment 'tiny' has a run already (finished, epoch 2)\n"
        "  fix: pymodules train tiny --resume resumes it; --reset moves it aside "
        "and starts again"
    )
    assert {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()} == before


def test_a_reset_moves_the_old_run_aside(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    old = load(path, "last")["weight"]

    Trainer(path, existing="reset", overrides={"train.seed": 5}, reporter=SilentPrinter()).fit()

    moved = torch.load(path / "data.1" / "module_ckps" / "last" / "net.pt", weights_only=True)
    assert torch.equal(moved["weight"], old)
    assert not torch.equal(load(path, "last")["weight"], old)


def test_a_reset_of_an_invalid_experiment_moves_nothing(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    (path / "pymodules" / "task.py").write_text("1 / 0")

    with pytest.raises(ImportError):
        Trainer(path, existing="reset", reporter=SilentPrinter()).fit()

    assert (path / "data" / "run.json").is_file()


def test_training_without_eval_data_has_no_best(tmp_path):
    task = TINY_TASK.replace("def eval_data", "def _unused").replace("def eval_step", "def _step")
    path = write_experiment(tmp_path, task=task)

    result = fit(path)

    assert result.best_value is None
    assert result.pools == ("frzn", "init", "last", "epoch_1", "epoch_2")


def test_old_epoch_pools_go_first(tmp_path):
    path = write_experiment(tmp_path)

    result = fit(path, train__epochs=12, checkpoints__keep_epochs=3)

    assert result.pools[-3:] == ("epoch_10", "epoch_11", "epoch_12")


def test_patience_ends_the_run(tmp_path):
    task = TINY_TASK.replace("lr=0.1", "lr=0.0")
    path = write_experiment(tmp_path, task=task)

    result = fit(path, train__epochs=50, train__patience=3)

    assert result.epochs == 3
    assert result.stop_reason == "no better loss in 3 evaluations (patience)"


def test_startup_epochs_do_not_count_for_patience(tmp_path):
    task = TINY_TASK.replace("lr=0.1", "lr=0.0")
    path = write_experiment(tmp_path, task=task)

    result = fit(path, train__epochs=50, train__patience=2, train__startup=4)

    assert result.epochs == 6


@pytest.mark.parametrize(("max_steps", "epochs"), [(4, 2), (3, 1), (6, 2)])
def test_max_steps_ends_the_run_with_an_eval_loop(tmp_path, max_steps, epochs):
    path = write_experiment(tmp_path)

    result = fit(path, train__epochs=9, train__max_steps=max_steps)

    assert (result.steps, result.epochs) == (max_steps, epochs)
    assert result.stop_reason == f"max_steps = {max_steps} reached"
    assert metrics_log(path)[-1]["phase"] == "eval"


def test_max_minutes_ends_the_run(tmp_path):
    task = TINY_TASK.replace(
        "def train_step(module_pool, batch):",
        "import time\n\ndef train_step(module_pool, batch):\n    time.sleep(0.05)",
    )
    path = write_experiment(tmp_path, task=task)

    result = fit(path, train__epochs=1000, train__max_minutes=0.01)

    assert result.stop_reason == "max_minutes = 0.01 reached"
    assert result.epochs < 100


def test_evaluation_every_n_epochs_includes_the_last(tmp_path):
    path = write_experiment(tmp_path)

    fit(path, train__epochs=5, train__eval_every_n_epochs=2)

    evaluated = [row["epoch"] for row in metrics_log(path) if row["phase"] == "eval"]
    assert evaluated == [0, 2, 4, 5]


def test_commits_in_mid_epoch_save_last_only(tmp_path):
    task = TINY_TASK + (
        "\n\ndef checkpoint_committed(run, receipt):\n"
        "    with (run.data_dir / 'commits').open('a') as file:\n"
        "        print(receipt.step, *receipt.pools, file=file)\n"
    )
    path = write_experiment(tmp_path, task=task)

    fit(path, train__epochs=1, checkpoints__every_n_steps=2)

    assert (path / "data" / "commits").read_text().splitlines() == [
        "0 frzn init last",
        "0 last best",
        "2 last",
        "3 last",
        "3 last best epoch_1",
    ]


def test_a_loss_that_is_not_finite_stops_the_run_before_best_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = TINY_TASK.replace(
        "    return mse_loss(module_pool.net(inputs), targets)\n\n\ndef eval",
        "    factor = float('nan') if run.step == 4 else 1.0\n"
        "    return mse_loss(module_pool.net(inputs), targets) * factor"
        "\n\n\ndef eval",
    ).replace("def train_step(module_pool, batch)", "def train_step(module_pool, batch, run)")
    path = write_experiment(tmp_path, task=task)

    with pytest.raises(NonFiniteLossError) as caught:
        fit(path)

    assert str(caught.value) == (
        "experiments/tiny/pymodules/task.py:26: the loss of optimizer 'main' is nan "
        "(epoch 2, step 5, batch 2)\n"
        '  fix: lower the learning rate, set clip_norm, or [train] on_nonfinite = "skip"'
    )
    run = json.loads((path / "data" / "run.json").read_text())
    assert (run["state"], run["epoch"]) == ("failed", 2)
    assert run["best"]["epoch"] == 1
    assert torch.equal(load(path, "best")["weight"], load(path, "epoch_1")["weight"])


def test_skipped_losses_are_counted_and_change_nothing(tmp_path):
    task = TINY_TASK.replace(
        "    return mse_loss(module_pool.net(inputs), targets)\n\n\ndef eval",
        "    return mse_loss(module_pool.net(inputs), targets) * float('nan')\n\n\ndef eval",
    )
    path = write_experiment(tmp_path, task=task)

    fit(path, train__on_nonfinite="skip")

    run = json.loads((path / "data" / "run.json").read_text())
    assert run["skipped_steps"] == 6
    assert torch.equal(load(path, "init")["weight"], load(path, "last")["weight"])


def test_an_interrupt_leaves_a_record_and_whole_checkpoints(tmp_path):
    task = TINY_TASK.replace(
        "def train_step(module_pool, batch):",
        "def train_step(module_pool, batch, run):\n"
        "    if run.step == 4:\n        raise KeyboardInterrupt",
    )
    path = write_experiment(tmp_path, task=task)

    with pytest.raises(KeyboardInterrupt):
        fit(path)

    run = json.loads((path / "data" / "run.json").read_text())
    assert run["state"] == "interrupted"
    assert load(path, "epoch_1")["weight"].shape == (1, 4)


def test_bfloat16_steps_train_and_save_full_precision(tmp_path):
    path = write_experiment(tmp_path)

    result = fit(path, train__precision="bf16", train__epochs=8)

    assert load(path, "last")["weight"].dtype is torch.float32
    assert result.metrics["loss"] < 0.1


def test_a_dataset_with_workers_gives_the_same_run(tmp_path):
    alone = write_experiment(tmp_path, "a")
    workers = write_experiment(tmp_path, "b")

    fit(alone)
    fit(workers, train__num_workers=2)

    assert torch.equal(load(alone, "last")["weight"], load(workers, "last")["weight"])
