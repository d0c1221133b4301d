"""Signals end a run after its step, saved; real processes get real signals."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from run_cases import outcome_of
from support import TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.training.run_output.console import SilentPrinter

SLOW = TINY_TASK.replace(
    "def train_step(module_pool, batch):",
    "def train_step(module_pool, batch):\n    import time\n    time.sleep(0.02)",
)
# Evaluates until the signal is there.
SLOW_EVAL = TINY_TASK.replace(
    "def eval_step(module_pool, batch):",
    "def eval_step(module_pool, batch, run):\n"
    "    import time\n"
    "    for _ in range(10_000 if run.epoch else 0):\n"
    "        if (run.data_dir / 'signalled').exists():\n"
    "            break\n"
    "        time.sleep(0.01)",
)
WORKERS = SLOW.replace(
    "return dataset(1)",
    "from torch.utils.data import DataLoader\n"
    "    return DataLoader(dataset(1), batch_size=16, shuffle=True, num_workers=2)",
)
TOML = "[train]\nepochs = 40\nbatch_size = 16\n"


def start(path: Path, *arguments: str) -> subprocess.Popen:
    """Start the command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pymodules_core", "train", str(path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(is_there: Callable[[], bool]) -> None:
    """Wait until something is there."""
    until = time.monotonic() + 60
    while not is_there():
        assert time.monotonic() < until
        time.sleep(0.01)


def wait_for_epoch(path: Path, epoch: int) -> None:
    """Wait until an epoch is logged."""
    log = path / "data" / "metrics.jsonl"
    wait_for(lambda: log.exists() and f'"epoch": {epoch},' in log.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the slow run comes to where nothing stops it."""
    path = write_experiment(tmp_path_factory.mktemp("whole"), task=SLOW, toml=TOML)
    process = start(path)
    process.communicate()
    assert process.returncode == 0
    return outcome_of(path)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_the_run_saved_and_the_rest_comes_to_the_same(tmp_path, whole, number, code):
    path = write_experiment(tmp_path, "stopped", task=SLOW, toml=TOML)
    process = start(path)
    wait_for_epoch(path, 3)

    process.send_signal(number)

    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, output + errors
    assert re.search(
        rf"{number.name}: stopped and saved; epoch \d+, step \d+\n"
        r"  fix: pymodules train stopped --resume\n$",
        errors,
    )
    assert "Traceback" not in errors
    rest = start(path, "--resume")
    output, errors = rest.communicate(timeout=60)
    assert rest.returncode == 0, output + errors
    assert "resumed " in output
    assert outcome_of(path) == whole


def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(tmp_path):
    path = write_experiment(tmp_path, "group", task=WORKERS, toml=TOML)
    process = start(path)
    wait_for_epoch(path, 2)

    os.killpg(process.pid, signal.SIGTERM)

    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "SIGTERM: stopped and saved" in errors


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    task = TINY_TASK.replace(
        "def train_step(module_pool, batch):",
        "def train_step(module_pool, batch, run):\n"
        "    import time\n"
        "    if run.step == 4:\n"
        "        (run.data_dir / 'stuck').touch()\n"
        "    for _ in range(30_000 if run.step == 4 else 0):\n"
        "        time.sleep(0.01)",
    )
    path = write_experiment(tmp_path, "stuck", task=task, toml=TOML)
    process = start(path)
    wait_for((path / "data" / "stuck").exists)
    process.send_signal(signal.SIGINT)
    told = "SIGINT: finishing this step and saving; once more ends at once"
    assert any(told in line for line in process.stdout)

    process.send_signal(signal.SIGINT)

    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors


def test_a_signal_in_an_evaluation_is_answered_there_and_commits_nothing(tmp_path):
    path = write_experiment(tmp_path, "evaluating", task=SLOW_EVAL, toml=TOML)
    process = start(path)
    wait_for_epoch(path, 1)

    process.send_signal(signal.SIGTERM)
    (path / "data" / "signalled").touch()

    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "SIGTERM: stopped and saved; epoch 1, step 3" in errors
    rows = (path / "data" / "metrics.jsonl").read_text().splitlines()
    assert '"phase": "train"' in rows[-1]
    status = subprocess.run(
        [sys.executable, "-m", "pymodules_core", "status", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "interrupted" in status.stdout


def test_nohup_is_kept(tmp_path):
    path = write_experiment(tmp_path, "kept", task=SLOW, toml=TOML.replace("40", "6"))
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "pymodules_core", "train", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_epoch(path, 1)

    process.send_signal(signal.SIGHUP)

    assert process.wait(timeout=60) == 0


def test_a_terminal_that_is_closed_costs_nothing(tmp_path):
    path = write_experiment(tmp_path, "closed", task=SLOW, toml=TOML)
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pymodules_core", "train", str(path)],
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"},
    )
    os.close(end)
    wait_for_epoch(path, 2)

    os.close(terminal)
    process.send_signal(signal.SIGHUP)

    assert process.wait(timeout=60) == 129
    record = json.loads((path / "data" / "run.json").read_text())
    assert (record["state"], record["error"][:23]) == ("interrupted", "SIGHUP: stopped and sav")


def test_a_reader_that_is_gone_does_not_end_the_run(tmp_path):
    path = write_experiment(tmp_path, "unread", task=SLOW, toml=TOML.replace("40", "8"))
    process = start(path)
    process.stdout.close()

    process.communicate(timeout=60)

    assert process.returncode == 0
    assert json.loads((path / "data" / "run.json").read_text())["state"] == "finished"


def test_a_child_that_is_forked_by_the_task_ends_as_the_task_says(tmp_path):
    task = TINY_TASK + (
        "\n\ndef wait(begun):\n"
        "    import time\n"
        "    begun.set()\n"
        "    time.sleep(300)\n"
        "\n\ndef epoch_finished(run):\n"
        "    import multiprocessing\n"
        "    forks = multiprocessing.get_context('fork')\n"
        "    begun = forks.Event()\n"
        "    child = forks.Process(target=wait, args=(begun,))\n"
        "    child.start()\n"
        "    assert begun.wait(60)\n"
        "    child.terminate()\n"
        "    child.join(60)\n"
        "    run.state['code'] = child.exitcode\n"
        "    assert child.exitcode == -15, child.exitcode\n"
    )
    path = write_experiment(tmp_path, "forks", task=task)

    process = start(path)

    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, output + errors


def test_handlers_are_put_back_and_threads_install_none(tmp_path):
    path = write_experiment(tmp_path)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    Trainer(path, reporter=SilentPrinter()).fit()
    thread = threading.Thread(
        target=Trainer(path, existing="resume", overrides={"train.epochs": 3}).fit
    )
    thread.start()
    thread.join()

    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert outcome_of(path)["log"][-1]["epoch"] == 3


@pytest.mark.parametrize("streams", [">&-", "2>&1 >/dev/null | true", "2>/dev/full >/dev/full"])
def test_a_run_needs_nobody_who_listens(tmp_path, streams):
    path = write_experiment(tmp_path, "unheard")
    Trainer(path, reporter=SilentPrinter()).fit()
    # Another number of threads is reported in a warning.
    command = f"{sys.executable} -m pymodules_core train {path} --resume --epochs 4 {streams}"

    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        check=False,
    )

    record = json.loads((path / "data" / "run.json").read_text())
    assert (record["state"], record["epoch"]) == ("finished", 4)
    assert result.returncode in ({0, 1} if "full" in streams else {0})
