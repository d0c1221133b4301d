"""What ``--resume`` needs, keeps and refuses."""

import json
import logging
import os
import shutil
import sys

import pytest
import torch
from run_cases import outcome_of
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core import CheckpointManager, ModulePool, Trainer
from pymodules_core.cli.main import run
from pymodules_core.errors import (
    ExistingRunError,
    RunChangedError,
    SettingsError,
    StepError,
    StoreLockedError,
    TaskError,
    TrainingError,
    WeightMismatchError,
)
from pymodules_core.training.run_output.console import SilentPrinter


class Lines(SilentPrinter):
    """Keeps what a run says."""

    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def fit(path, *, existing="resume", reporter=None, accept_changes=False, **overrides):
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return Trainer(
        path,
        existing=existing,
        accept_changes=accept_changes,
        overrides=keys,
        reporter=reporter or SilentPrinter(),
    ).fit()


def weights(path, pool, module="net"):
    return torch.load(path / "data" / "module_ckps" / pool / f"{module}.pt", weights_only=True)


def test_without_a_run_it_starts_one(tmp_path):
    path = write_experiment(tmp_path)

    assert fit(path).epochs == 2


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    before = outcome_of(path)

    result = fit(path)

    assert (result.epochs, result.steps) == (2, 6)
    assert result.stop_reason == "all 2 epochs done"
    assert outcome_of(path) == before


def test_more_epochs_continue_with_a_finished_run(tmp_path):
    longer, once = (write_experiment(tmp_path, name) for name in ("longer", "once"))
    fit(longer, train__epochs=2)
    fit(once, train__epochs=5)

    result = fit(longer, train__epochs=5)

    assert result.epochs == 5
    assert outcome_of(longer) == outcome_of(once)


def test_the_record_reports_where_the_run_continued(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    started = json.loads((path / "data" / "run.json").read_text())["started"]

    fit(path, train__epochs=3)

    record = json.loads((path / "data" / "run.json").read_text())
    assert record["started"] == started
    assert [(one["epoch"], one["step"]) for one in record["resumed"]] == [(2, 6)]
    assert record["state"] == "finished"


def test_the_overrides_of_the_run_are_kept_and_can_be_changed(tmp_path):
    path = write_experiment(tmp_path)
    fit(path, train__epochs=1, train__seed=5)
    reporter = Lines()

    result = fit(path, reporter=reporter, train__epochs=3)

    assert result.epochs == 3
    assert reporter.lines[0] == "with the overrides that the run has: train.seed=5"
    assert json.loads((path / "data" / "run.json").read_text())["seed"] == 5


def test_hooks_learn_that_the_run_continues(tmp_path):
    task = TINY_TASK + (
        "\n\ndef weights_ready(run):\n    run.state['told'] = ['weights_ready']\n"
        "\n\ndef run_started(run):\n"
        "    run.state['told'] = [*run.state['told'], run.resumed_step]\n"
    )
    path = write_experiment(tmp_path, task=task)
    fit(path)

    fit(path, train__epochs=3)
    fit(path, train__epochs=4)

    with CheckpointManager(path / "data" / "module_ckps", ModulePool.discover(path)) as manager:
        state = manager.resume().state
    assert state["user"]["told"]["plain"] == ["weights_ready", None, 6, 9]


def test_a_changed_file_is_shown_line_by_line_and_refused(home):
    path = write_experiment(home)
    fit(path)
    before = outcome_of(path)
    task = path / "pymodules" / "task.py"
    task.write_text(task.read_text().replace("lr=0.1", "lr=0.2"))
    (path / "pymodules" / "modules" / "_new.py").write_text("")

    with pytest.raises(RunChangedError) as caught:
        fit(path, train__epochs=3)

    assert str(caught.value) == (
        "experiment 'tiny' is not what its run began with\n"
        "  pymodules/modules/_new.py is new\n"
        "  pymodules/task.py changed\n"
        "      -    return SGD(module_pool.net.parameters(), lr=0.1)\n"
        "      +    return SGD(module_pool.net.parameters(), lr=0.2)\n"
        "  fix: put it back, or resume with the changes: --resume --accept-changes"
    )
    assert outcome_of(path) == before


def test_accepted_changes_continue_and_are_what_the_next_resume_compares_with(home):
    path = write_experiment(home)
    fit(path)
    task = path / "pymodules" / "task.py"
    old = task.read_text()
    task.write_text(old.replace('"""', "'''") + "\n# changed\n")
    reporter = Lines()

    fit(path, accept_changes=True, reporter=reporter, train__epochs=3)

    assert reporter.lines[0].startswith("changed: pymodules/task.py changed\n")
    assert (path / "data/sources.1/pymodules/task.py").read_text() == old
    assert (path / "data/sources/pymodules/task.py").read_text() == task.read_text()
    assert fit(path, train__epochs=4).epochs == 4


def test_settings_that_decide_what_is_learned_may_not_change(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)

    with pytest.raises(RunChangedError) as caught:
        fit(path, train__batch_size=8, optimizers__main__clip_norm=1.0)

    assert caught.value.found == [
        "optimizers.main.clip_norm: None -> 1.0",
        "train.batch_size: 16 -> 8",
    ]


def test_limits_retention_and_workers_may_change_and_nan_is_not_a_change(tmp_path):
    toml = "[train]\nepochs = 2\nbatch_size = 16\n[task]\nnothing = nan\nmany = [nan]\n"
    path = write_experiment(tmp_path, toml=toml)
    fit(path)

    result = fit(
        path,
        train__epochs=9,
        train__max_steps=9,
        train__patience=5,
        train__num_workers=1,
        checkpoints__keep_epochs=1,
        checkpoints__every_n_steps=2,
    )

    assert result.stop_reason == "max_steps = 9 reached"
    assert result.pools[-1] == "epoch_3"


def test_a_module_that_came_later_begins_with_its_initial_weights(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    (path / "pymodules/modules/later.py").write_text(TINY_MODULE)

    fit(path, accept_changes=True, train__epochs=3)

    assert set(weights(path, "last", "later")) == {"weight", "bias"}
    assert not (path / "data/module_ckps/init/later.pt").exists()


def test_a_module_that_is_gone_keeps_its_weights_in_the_pools(tmp_path):
    modules = {"net": TINY_MODULE, "other": TINY_MODULE}
    path = write_experiment(tmp_path, modules=modules)
    fit(path)
    kept = weights(path, "last", "other")
    (path / "pymodules/modules/other.py").unlink()

    fit(path, accept_changes=True, train__epochs=3)

    assert torch.equal(weights(path, "last", "other")["weight"], kept["weight"])


def test_what_is_frozen_stays_so(tmp_path):
    modules = {"net": TINY_MODULE, "other": TINY_MODULE}
    path = write_experiment(tmp_path, modules=modules)
    fit(path)

    with pytest.raises(SettingsError) as caught:
        fit(path, accept_changes=True, modules__settings__other__frozen=True)

    assert str(caught.value) == (
        "module 'other' is frozen and was not when the run began\n"
        "  fix: a run keeps what is frozen: begin another experiment, whose modules take their "
        "weights from this one by load_weights_from_exp"
    )


def test_a_run_that_cannot_be_brought_back_keeps_its_record(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    record = (path / "data" / "run.json").read_bytes()
    file = path / "pymodules" / "modules" / "net.py"
    file.write_text(TINY_MODULE + "module.register_buffer('more', module.weight.detach())\n")

    with pytest.raises(WeightMismatchError):
        fit(path, accept_changes=True, train__epochs=9)

    assert (path / "data" / "run.json").read_bytes() == record


def test_optimizer_state_follows_names_not_places(tmp_path):
    two = TINY_TASK.replace(
        "SGD(module_pool.net.parameters(), lr=0.1)",
        "torch.optim.Adam(module_pool.net.parameters(), lr=0.1)",
    )
    turned = two.replace(
        "module_pool.net.parameters(), lr", "reversed(list(module_pool.net.parameters())), lr"
    )
    path, whole = (write_experiment(tmp_path, name, task=two) for name in ("turned", "whole"))
    fit(path, train__epochs=2)
    fit(whole, train__epochs=4)
    (path / "pymodules/task.py").write_text(turned)

    fit(path, accept_changes=True, train__epochs=4)

    # The order of sums may differ in the last bit; state at the wrong parameter does not.
    torch.testing.assert_close(weights(path, "last")["weight"], weights(whole, "last")["weight"])


@pytest.mark.parametrize("state", [None, {"optimizer": {"lr": 0.1}}])
def test_a_commit_without_training_state_continues_with_a_warning(tmp_path, caplog, state):
    path = write_experiment(tmp_path)
    pool = ModulePool.discover(path)
    with CheckpointManager(path / "data" / "module_ckps", pool) as manager:
        manager.start()
        manager.commit("last", epoch=1, step=3, metrics={"loss": 1.0}, state=state)

    with caplog.at_level(logging.WARNING):
        result = fit(path)

    assert (result.epochs, result.steps) == (2, 6)
    assert "the checkpoint has no training state" in caplog.text


def test_a_damaged_newest_commit_falls_back_to_the_one_before(tmp_path, caplog):
    path, whole = (write_experiment(tmp_path, name) for name in ("broken", "whole"))
    fit(path, train__epochs=3)
    fit(whole, train__epochs=4)
    newest = (path / "data/module_ckps/epoch_3/net.pt").read_bytes()
    files = list((path / "data/module_ckps").rglob("*.pt"))
    for file in [file for file in files if file.read_bytes() == newest]:  # links and copies
        file.chmod(0o644)
        os.truncate(file, len(newest) - 1)

    with caplog.at_level(logging.WARNING):
        fit(path, train__epochs=4)

    assert "quarantine" in caplog.text
    assert outcome_of(path)["pools"] == outcome_of(whole)["pools"]


def test_a_run_that_was_killed_before_its_first_commit_starts_over(tmp_path):
    path = write_experiment(tmp_path)
    (path / "data" / "module_ckps").mkdir(parents=True)
    (path / "data" / "metrics.jsonl").write_text('{"half')

    assert fit(path).epochs == 2
    assert [row["epoch"] for row in outcome_of(path)["log"]] == [0, 1, 1, 2, 2]


def test_rows_that_were_logged_after_the_commit_are_logged_once(tmp_path):
    path, whole = (write_experiment(tmp_path, n) for n in ("path", "whole"))
    fit(whole, train__epochs=3)
    fit(path, train__epochs=2)
    with (path / "data" / "metrics.jsonl").open("a") as log:
        # A kill between a row and its commit, and one within a row.
        log.write('{"epoch": 3, "step": 9, "phase": "train", "metrics": {}}\n{"epoch": 3, "st')

    fit(path, train__epochs=3)

    assert outcome_of(path) == outcome_of(whole)


def test_a_log_that_lost_rows_is_reported(tmp_path, caplog):
    path = write_experiment(tmp_path)
    fit(path)
    (path / "data" / "metrics.jsonl").write_text("")

    with caplog.at_level(logging.WARNING):
        fit(path, train__epochs=3)

    assert "has lost its last" in caplog.text


@pytest.mark.parametrize("left_bytes", [None, 10], ids=["all", "most"])
def test_a_log_that_loses_rows_under_a_run_is_reported_and_continues_whole(
    tmp_path, caplog, left_bytes
):
    lose = "(run.data_dir / 'metrics.jsonl')." + (
        "unlink()" if left_bytes is None else f"write_text('x' * {left_bytes})"
    )
    task = f"{TINY_TASK}\n\ndef epoch_finished(run):\n    run.epoch == 1 and {lose}\n"
    path = write_experiment(tmp_path, task=task)

    fit(path)

    assert caplog.text.count("has lost its last") == 1
    rows = (path / "data" / "metrics.jsonl").read_text().splitlines()[-2:]
    assert [json.loads(row)["epoch"] for row in rows] == [2, 2]


def test_a_clock_that_goes_back_and_times_that_are_equal_change_nothing(tmp_path, monkeypatch):
    path, whole = (write_experiment(tmp_path, name) for name in ("path", "whole"))
    fit(whole, train__epochs=4)
    fit(path, train__epochs=2)
    for file in path.rglob("*"):
        os.utime(file, (0, 0))
    hours = iter(range(10**6, 0, -1))
    monkeypatch.setattr("time.time", lambda: next(hours) * 3600.0)

    fit(path, train__epochs=4)

    assert outcome_of(path) == outcome_of(whole)
    assert not (path / "data/module_ckps/.store/quarantine").exists()


def test_other_threads_are_reported_as_not_bit_exact(tmp_path, caplog):
    path = write_experiment(tmp_path)
    fit(path)
    torch.set_num_threads(2)

    with caplog.at_level(logging.WARNING):
        fit(path, train__epochs=3)

    assert "not bit for bit as if it had never stopped: threads 1 -> 2" in caplog.text


def test_patience_counts_on(tmp_path):
    path = write_experiment(tmp_path, task=TINY_TASK.replace("lr=0.1", "lr=0.0"))
    fit(path, train__epochs=2, train__patience=4)

    result = fit(path, train__epochs=50, train__patience=4)

    assert result.epochs == 4
    assert fit(path, train__epochs=60, train__patience=4).epochs == 4


def test_the_command_names_both_ways_past_a_run(home, capsys):
    path = write_experiment(home)
    fit(path)

    codes = [
        run(["train", "tiny"]),
        run(["train", "tiny", "--resume", "--reset"]),
        run(["train", "tiny", "--accept-changes"]),
    ]

    assert codes == [2, 2, 2]
    errors = capsys.readouterr().err
    assert "--resume resumes it; --reset moves it aside and starts again" in errors
    assert "--resume resumes the run, --reset moves it aside: choose one" in errors
    assert "--accept-changes belongs to --resume" in errors


def test_a_run_without_the_folder_of_its_sources_still_continues(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    shutil.rmtree(path / "data" / "sources")
    task = path / "pymodules" / "task.py"
    task.write_text(task.read_text() + "\n# changed\n")

    with pytest.raises(RunChangedError) as caught:
        fit(path)

    assert caught.value.found == ["pymodules/task.py changed"]


def test_two_runs_at_once_are_refused(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    pool = ModulePool.discover(path)
    with CheckpointManager(path / "data" / "module_ckps", pool) as manager:
        manager.resume()

        with pytest.raises(Exception, match="is being written by this process") as caught:
            fit(path, train__epochs=3)

    assert not isinstance(caught.value, ExistingRunError)
    assert json.loads((path / "data" / "run.json").read_text())["state"] == "finished"


METRIC_TASK = TINY_TASK.replace(
    "def train_step(module_pool, batch):",
    """class Seen:
    def __init__(self):
        self.count = torch.zeros(())

    def update(self, inputs):
        self.count += len(inputs)

    def compute(self):
        return self.count

    def reset(self):
        self.count.zero_()

    def state_dict(self):
        return {"count": self.count.clone()}

    def load_state_dict(self, state):
        self.count = state["count"]


seen = Seen()


def run_started(run):
    KEEP


def train_step_finished(run):
    import os
    if os.environ.get("DIE_AT") == str(run.step):
        raise RuntimeError


def train_step(module_pool, batch):
    seen.update(batch[0])
    return {"loss": train_loss(module_pool, batch), "seen": seen}


def train_loss(module_pool, batch):""",
)


@pytest.mark.parametrize(("keep", "count"), [("pass", 24.0), ("run.state['seen'] = seen", 40.0)])
def test_a_metric_object_continues_within_an_epoch_where_run_state_holds_it(
    tmp_path, monkeypatch, caplog, keep, count
):
    path = write_experiment(tmp_path, task=METRIC_TASK.replace("KEEP", keep))
    monkeypatch.setenv("DIE_AT", "2")
    with pytest.raises(StepError):
        fit(path, checkpoints__every_n_steps=1, train__epochs=1)
    monkeypatch.delenv("DIE_AT")

    fit(path)

    (row,) = [row for row in outcome_of(path)["log"] if row["phase"] == "train"]
    assert row["metrics"]["seen"] == count
    told = "train metrics that accumulate by themselves know only the rest of epoch 1: seen."
    assert (told in caplog.text) == (keep == "pass")


DRAWING_TASK = (
    TINY_TASK.replace(
        "mse_loss(module_pool.net(inputs), targets)\n\n\ndef eval",
        "mse_loss(module_pool.net(inputs + torch.rand(())), targets)\n\n\ndef eval",
    )
    + """

def run_started(run):
    torch.rand(7)
    run.state.setdefault("difficulty", 0.0)


def epoch_finished(run):
    run.state["difficulty"] += float(torch.rand(()))
    with torch.no_grad():
        run.module_pool.net.bias.add_(run.state["difficulty"])


def checkpoint_committed(run, receipt):
    torch.rand(3)
"""
)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_hooks_that_draw_and_change_things_do_so_once_for_each_epoch(tmp_path, epochs):
    path, whole = (
        write_experiment(tmp_path, name, task=DRAWING_TASK) for name in ("path", "whole")
    )
    fit(whole, train__epochs=4)
    fit(path, train__epochs=epochs)
    fit(path, train__epochs=epochs)

    fit(path, train__epochs=4)

    assert outcome_of(path) == outcome_of(whole)


def test_a_plugin_that_draws_shifts_no_number_of_the_training(tmp_path, monkeypatch):
    site = tmp_path / "site"
    metadata = site / "acme_draws-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Name: acme-draws\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pymodules]\ndraws = acme_draws_numbers\n")
    (site / "acme_draws_numbers.py").write_text(
        "import torch\nfrom pymodules_core import hookimpl\n"
        + "".join(
            f"\n\n@hookimpl\ndef {hook}(run):\n    torch.rand(3)\n"
            for hook in ("weights_ready", "run_started", "train_step_finished", "epoch_finished")
        )
    )
    alone, beside = (write_experiment(tmp_path, n, task=DRAWING_TASK) for n in ("alone", "beside"))
    fit(alone)
    monkeypatch.syspath_prepend(str(site))

    fit(beside)

    assert outcome_of(beside) == outcome_of(alone)


def test_a_plugin_with_state_gets_it_back(tmp_path, monkeypatch):
    site = tmp_path / "site"
    metadata = site / "acme_counts-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Name: acme-counts\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pymodules]\ncounts = acme_counts_steps:plugin\n")
    (site / "acme_counts_steps.py").write_text(
        "from pymodules_core import hookimpl\n\n\nclass Plugin:\n"
        "    steps = 0\n    started_at = None\n\n"
        "    @hookimpl\n    def run_started(self):\n        self.started_at = self.steps\n\n"
        "    @hookimpl\n    def train_step_finished(self):\n        self.steps += 1\n\n"
        "    def state_dict(self):\n        return {'steps': self.steps}\n\n"
        "    def load_state_dict(self, state):\n        self.steps = state['steps']\n\n\n"
        "plugin = Plugin()\n"
    )
    monkeypatch.syspath_prepend(str(site))
    path = write_experiment(tmp_path)
    fit(path)
    plugin = sys.modules["acme_counts_steps"].plugin
    plugin.steps = 99

    fit(path, train__epochs=3)

    assert (plugin.started_at, plugin.steps) == (6, 9)


FIXED_NOISE_TASK = (
    TINY_TASK.replace(
        "mse_loss(module_pool.net(inputs), targets)\n\n\ndef eval",
        "mse_loss(module_pool.net(inputs + NOISE[0]), targets)\n\n\ndef eval",
    )
    + """

NOISE = []


def run_started(run):
    NOISE[:] = [torch.randn(4)]
"""
)


def test_noise_that_is_fixed_at_the_start_is_the_same_in_every_process(tmp_path):
    path, whole = (write_experiment(tmp_path, n, task=FIXED_NOISE_TASK) for n in ("path", "whole"))
    fit(whole, train__epochs=3)
    fit(path, train__epochs=1)

    fit(path, train__epochs=3)

    assert outcome_of(path) == outcome_of(whole)


def test_what_a_hook_froze_stays_frozen(tmp_path):
    task = TINY_TASK + (
        "\n\ndef epoch_finished(run):\n"
        "    run.module_pool.net.bias.requires_grad_(run.epoch != 1)\n"
    )
    path, whole = (write_experiment(tmp_path, n, task=task) for n in ("path", "whole"))
    fit(whole, train__epochs=3)
    fit(path, train__epochs=3, train__max_steps=4, checkpoints__every_n_steps=1)
    saved = weights(path, "epoch_1")["bias"]
    assert torch.equal(saved, weights(path, "last")["bias"])

    fit(path, train__max_steps=1000)

    assert torch.equal(weights(path, "epoch_2")["bias"], saved)
    assert not torch.equal(weights(path, "last")["bias"], saved)


def change(path, old, new):
    task = path / "pymodules" / "task.py"
    assert old in task.read_text()
    task.write_text(task.read_text().replace(old, new))


def rates(path):
    return [row["learning_rates"] for row in outcome_of(path)["log"] if row["phase"] == "train"]


def test_another_optimizer_starts_over_and_says_so(tmp_path, caplog):
    path = write_experiment(tmp_path)
    fit(path)
    change(path, "SGD(module_pool.net.parameters(), lr=0.1)", "Adam(module_pool.net.parameters())")
    change(path, "import SGD", "import Adam")

    fit(path, accept_changes=True, train__epochs=3)

    assert (
        "optimizer 'main': it was torch.optim.sgd.SGD and is torch.optim.adam.Adam: "
        "it starts without state"
    ) in caplog.text
    assert rates(path)[-1] == {"main": 0.001}


def test_a_learning_rate_that_was_changed_is_the_new_one(tmp_path, caplog):
    path = write_experiment(tmp_path)
    fit(path)
    change(path, "lr=0.1", "lr=0.02, weight_decay=0.5")

    fit(path, accept_changes=True, train__epochs=3)

    assert rates(path)[-1] == {"main": 0.02}
    assert "optimizer 'main': lr was 0.1 when the run began, and is now 0.02" in caplog.text
    assert "weight_decay was 0 when the run began, and is now 0.5" in caplog.text


SCHEDULED_TASK = (
    TINY_TASK
    + """

def schedulers(optimizers, epochs):
    return torch.optim.lr_scheduler.SCHEDULER
"""
)


SCHEDULERS = {
    "none": "ConstantLR(optimizers['main'], 1.0)",
    "exponential": "ExponentialLR(optimizers['main'], 0.5)",
    "warm": "LinearLR(optimizers['main'], 0.1, total_iters=2)",
    "warmer": "LinearLR(optimizers['main'], 0.5, total_iters=2)",
    "cosine": "CosineAnnealingLR(optimizers['main'], epochs)",
    "cycle": "OneCycleLR(optimizers['main'], 0.2, total_steps=epochs + 1)",
    "steps": "MultiStepLR(optimizers['main'], [2, 9])",
    "other steps": "MultiStepLR(optimizers['main'], [2, 4])",
    "both": "SequentialLR(optimizers['main'], [\n"
    "        torch.optim.lr_scheduler.LinearLR(optimizers['main'], 0.1, total_iters=2),\n"
    "        torch.optim.lr_scheduler.ExponentialLR(optimizers['main'], 0.9)], [2])",
}


@pytest.mark.parametrize(
    ("before", "after", "rate"),
    [
        ("exponential", "exponential", 0.2),
        ("exponential", "cycle", 0.1),
        ("exponential", "cosine", 0.1),
        ("warm", "warmer", 0.1),
        ("warm", "warm", 0.3),
        ("both", "cosine", 0.1),
        ("cycle", "both", 0.1),
        ("steps", "other steps", 0.1),
        ("none", "cycle", 0.1),
    ],
)
def test_a_changed_schedule_is_todays_at_the_place_of_the_run(
    tmp_path, caplog, before, after, rate
):
    path, fresh = (
        write_experiment(tmp_path, n, task=SCHEDULED_TASK.replace("SCHEDULER", SCHEDULERS[which]))
        for n, which in (("path", before), ("fresh", after))
    )
    change(fresh, "lr=0.1", f"lr={rate}")
    fit(fresh, train__epochs=6)
    fit(path, train__epochs=6, train__max_steps=9)
    task = (fresh / "pymodules/task.py").read_text()
    (path / "pymodules/task.py").write_text(task)

    fit(path, accept_changes=True, train__max_steps=1000)

    assert rates(path)[3:] == rates(fresh)[3:]
    assert "its options or its schedule changed since the run began" in caplog.text


@pytest.mark.parametrize("scheduler", ["cosine", "cycle"])
def test_more_epochs_give_a_schedule_a_later_end(tmp_path, scheduler):
    task = SCHEDULED_TASK.replace("SCHEDULER", SCHEDULERS[scheduler])
    path, fresh = (write_experiment(tmp_path, n, task=task) for n in ("path", "fresh"))
    fit(fresh, train__epochs=8)
    fit(path, train__epochs=3)

    fit(path, train__epochs=8)

    assert rates(path)[3:] == rates(fresh)[3:]
    assert fit(path, train__epochs=8).epochs == 8


def test_a_schedule_that_is_over_cannot_be_made_shorter(tmp_path):
    task = SCHEDULED_TASK.replace("SCHEDULER", SCHEDULERS["cycle"])
    path = write_experiment(tmp_path, task=task)
    fit(path, train__epochs=6)

    with pytest.raises(TaskError) as caught:
        fit(path, train__epochs=3)

    assert "optimizer 'main' or its scheduler cannot load what was saved" in str(caught.value)


def test_a_changed_plateau_begins_at_todays_rate_and_reduces_it_as_it_now_should(tmp_path):
    # Nothing is ever good enough for it.
    scheduler = "ReduceLROnPlateau(optimizers['main'], factor=0.5, patience=0, threshold=9e9)"
    task = SCHEDULED_TASK.replace("SCHEDULER", scheduler)
    path = write_experiment(tmp_path, task=task)
    fit(path, train__epochs=2)
    change(path, "factor=0.5", "factor=0.1")

    fit(path, accept_changes=True, train__epochs=4)

    assert [row["main"] for row in rates(path)] == pytest.approx([0.1, 0.05, 0.1, 0.01])


def test_other_parameter_groups_take_todays_options_and_the_place_in_the_schedule(tmp_path):
    task = SCHEDULED_TASK.replace("SCHEDULER", SCHEDULERS["exponential"])
    path = write_experiment(tmp_path, task=task)
    fit(path)
    net = "module_pool.net"
    change(path, f"SGD({net}.parameters(), lr=0.1)", f"SGD([{net}.weight, {net}.bias], lr=0.1)")
    change(
        path,
        f"[{net}.weight, {net}.bias]",
        f'[{{"params": {net}.weight}}, {{"params": {net}.bias}}]',
    )

    fit(path, accept_changes=True, train__epochs=3)

    assert rates(path)[-1]["main"] == pytest.approx(0.025)


def test_a_rate_of_numpy_may_change(tmp_path):
    path = write_experiment(tmp_path, task="import numpy as np\n" + TINY_TASK)
    fit(path)
    change(path, "lr=0.1", "lr=np.float64(0.05)")
    fit(path, accept_changes=True, train__epochs=3)
    change(path, "np.float64(0.05)", "np.float64(0.02)")

    fit(path, accept_changes=True, train__epochs=4)

    assert [row["main"] for row in rates(path)] == [0.1, 0.1, 0.05, 0.02]


def test_a_new_module_keeps_what_it_wants_no_gradient_for(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    (path / "pymodules/modules/later.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Later(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.a = nn.Parameter(torch.ones(2), requires_grad=False)\n"
        "        self.b = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)\n\n\n"
        "module = Later()\nsettings = {}\n"
    )
    task = path / "pymodules/task.py"
    task.write_text(
        task.read_text()
        + "\n\ndef run_finished(run):\n"
        + "    assert not any(p.requires_grad for p in run.module_pool.later.parameters())\n"
    )

    assert fit(path, accept_changes=True, train__epochs=3).epochs == 3
    assert fit(path, train__epochs=4).epochs == 4


def test_optimizers_that_come_and_go_are_reported(tmp_path, caplog):
    path = write_experiment(tmp_path)
    fit(path)
    change(
        path,
        "return SGD(module_pool.net.parameters(), lr=0.1)",
        ('return {"other": SGD(module_pool.net.parameters(), lr=0.1)}'),
    )

    fit(path, accept_changes=True, train__epochs=3)

    assert "there is no optimizer 'main' any more: its state is dropped" in caplog.text
    assert "optimizer 'other' is new: it starts without state" in caplog.text


def test_accepted_changes_of_a_finished_run_leave_everything_as_it_is(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    change(path, "lr=0.1", "lr=0.2")
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()}

    fit(path, accept_changes=True)

    after = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()}
    changed = {f.name for f in after.keys() | before.keys() if after.get(f) != before.get(f)}
    assert changed <= {"holder.json", "lock"}


def test_the_sources_of_a_run_at_work_are_left_alone(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    change(path, "lr=0.1", "lr=0.2")
    with CheckpointManager(path / "data/module_ckps", ModulePool.discover(path)) as manager:
        manager.resume()
        with pytest.raises(StoreLockedError):
            fit(path, accept_changes=True, train__epochs=3)

    assert "lr=0.1" in (path / "data/sources/pymodules/task.py").read_text()
    assert not (path / "data/sources.1").exists()


def test_a_damaged_record_of_resumes_is_not_an_obstacle(tmp_path):
    path = write_experiment(tmp_path)
    fit(path)
    (path / "data/run.json").write_text('{"resumed": 5, "started": 3}')

    fit(path, train__epochs=3)

    assert len(json.loads((path / "data/run.json").read_text())["resumed"]) == 1


def test_a_parameter_that_no_module_has_is_named_when_it_is_added(tmp_path):
    task = TINY_TASK + (
        "\n\ndef epoch_finished(run):\n"
        "    extra = torch.nn.Parameter(torch.ones(3))\n"
        "    run.optimizers['main'].add_param_group({'params': [extra]})\n"
    )
    path = write_experiment(tmp_path, task=task)

    with pytest.raises(TaskError) as caught:
        fit(path)

    assert caught.value.what == (
        "optimizer 'main' owns a parameter of shape [3] that is in no module of the pool, so it "
        "would never be saved (epoch 1, step 1, batch 1)"
    )


def test_sources_that_cannot_be_copied_fail_the_run_and_it_continues_later(tmp_path):
    path = write_experiment(tmp_path)
    obstacle = path / "data" / "sources.tmp"
    obstacle.parent.mkdir()
    obstacle.write_text("a file in the way")

    with pytest.raises(TrainingError) as caught:
        fit(path)

    assert caught.value.what == "the sources of the run cannot be copied: File exists"
    assert caught.value.exit_code == 1
    assert json.loads((path / "data" / "run.json").read_text())["state"] == "failed"
    obstacle.unlink()
    assert fit(path).epochs == 2
    assert (path / "data/sources/pymodules/task.py").is_file()
