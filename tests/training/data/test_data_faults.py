"""Data that fails while a run reads it: the user's line, and how far the run was."""

import multiprocessing
import os
import re
import time
from pathlib import Path

import pytest
from support import TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.errors import PymodulesError, StepError, TaskError
from pymodules_core.training.data.workers import lost_worker
from pymodules_core.training.run_output.console import SilentPrinter

TASK = "data/experiments/tiny/pymodules/task.py"
DATASET = """class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == 7:
            {fault}
        return torch.zeros(4), torch.zeros(1)


def train_data():
    return Items()"""


def with_data(source: str) -> str:
    return TINY_TASK.replace("def train_data():\n    return dataset(1)", source)


def failure(home: Path, task: str, *, num_workers: int = 0) -> PymodulesError:
    toml = f"[train]\nepochs = 2\nbatch_size = 16\nnum_workers = {num_workers}\n"
    path = write_experiment(home, task=task, toml=toml)
    with pytest.raises(PymodulesError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()
    return caught.value


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise ValueError('bad sample')", "ValueError: bad sample"),
        ("raise ValueError('bad sample:\\n  7')", "ValueError: bad sample:\n  7"),
        ("return {}[index]", "KeyError: 7"),
    ],
)
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_an_item_that_raises_is_named_by_its_line_in_workers_too(home, fault, reason, workers):
    where = " (in a DataLoader worker)" if workers else ""

    error = failure(home, with_data(DATASET.format(fault=fault)), num_workers=workers)

    assert str(error) == (
        f"{TASK}:20: train_data raises {reason}{where} (epoch 1, step 2, batch 2)"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_raises_stop_iteration_does_not_cut_the_epoch_short(home, workers):
    error = failure(home, with_data(DATASET.format(fault="next(iter([]))")), num_workers=workers)

    assert str(error) == (
        f"{TASK}:24: train_data ended after 1 of 3 batches (epoch 1, step 2, batch 2)\n"
        "  fix: an item that raises StopIteration ends the data: look for next(...)"
    )


@pytest.mark.parametrize(("batches", "epoch"), [("iter([dataset(1)[:]])", 2), ("iter([])", 1)])
def test_data_that_gives_no_batch_names_the_epoch(home, batches, epoch):
    task = with_data(
        "class Once:\n"
        f"    rest = {batches}\n\n"
        "    def __iter__(self):\n        return self.rest\n\n\n"
        "def train_data():\n    return Once()"
    )

    assert str(failure(home, task)) == (
        f"{TASK}:21: train_data gave no batch in epoch {epoch}\n"
        "  fix: return data that is not empty and can be read again each epoch"
    )


def test_an_item_that_exits_fails_the_run_at_its_line(home):
    error = failure(home, with_data(DATASET.format(fault="raise SystemExit(0)")))

    assert str(error) == f"{TASK}:20: train_data raises SystemExit: 0 (epoch 1, step 2, batch 2)"


def end_late():
    os.closerange(3, 1024)  # as at the end of a process, and what says of it among them
    time.sleep(0.3)
    os._exit(3)


def test_how_a_worker_ended_is_waited_for():
    worker = multiprocessing.get_context("fork").Process(target=end_late)
    worker.start()

    lost = lost_worker(FileNotFoundError(2, "No such file or directory"), [worker])

    assert lost is not None
    assert lost.what == "a DataLoader worker ended with exit code 3"


FEWER = "workers that take too much memory are killed: use fewer, or num_workers = 0"
LOOK = "look for what ends it; with num_workers = 0 the main process reads the data"


@pytest.mark.parametrize(
    ("fault", "how", "fix"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL", FEWER),
        ("raise SystemExit(0)", "ended with exit code 0", LOOK),
        pytest.param(
            *("import os; os.kill(os.getpid(), 11)", "was killed by SIGSEGV", LOOK),
            marks=pytest.mark.long,
        ),
        pytest.param(
            "import os; os._exit(3)", "ended with exit code 3", LOOK, marks=pytest.mark.long
        ),
        pytest.param(
            "import os; os._exit(0)", "ended with exit code 0", LOOK, marks=pytest.mark.long
        ),
        pytest.param(
            "raise KeyboardInterrupt", "ended with exit code 0", LOOK, marks=pytest.mark.long
        ),
    ],
)
def test_a_worker_that_ends_is_named_by_how_it_ended(home, fault, how, fix):
    error = failure(home, with_data(DATASET.format(fault=fault)), num_workers=1)

    assert isinstance(error, StepError)
    assert error.exit_code == 1
    # torch's handler of SIGCHLD may raise first, wherever the run is, and knows less.
    assert re.fullmatch(
        rf"({TASK}:24: )?a DataLoader worker ({how}|was killed)( \(epoch 1, step \d, batch \d\))?"
        rf"\n  fix: ({re.escape(fix)}|{re.escape(FEWER)})",
        str(error),
    )


@pytest.mark.parametrize("where", ["train_step", "hook"])
def test_a_worker_whose_end_torch_reports_in_a_step_is_not_blamed_on_the_step(home, where):
    raising = "raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')"
    task = TINY_TASK.replace("    inputs, targets = batch\n", f"    {raising}\n", 1)
    if where == "hook":
        task = f"{TINY_TASK}\n\ndef epoch_finished(run):\n    {raising}\n"

    error = failure(home, task)

    assert error.what.startswith("a DataLoader worker was killed")
    assert error.fix == FEWER


def test_an_interrupt_in_an_item_passes_through(home):
    task = with_data(DATASET.format(fault="raise KeyboardInterrupt"))
    path = write_experiment(home, task=task)

    with pytest.raises(KeyboardInterrupt):
        Trainer(path, reporter=SilentPrinter()).fit()

    assert (path / "data" / "module_ckps" / "last" / "net.pt").is_file()


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        (
            "def train_data():\n    return open('x.csv')",
            15,
            "FileNotFoundError: [Errno 2] No such file or directory: 'x.csv'",
        ),
        (
            DATASET.format(fault="pass").replace("return 40", "return 1 / 0"),
            16,
            "ZeroDivisionError: division by zero",
        ),
        ("def train_data():\n    raise SystemExit(0)", 15, "SystemExit: 0"),
    ],
    ids=["function", "length", "exit"],
)
def test_data_that_raises_before_the_run_is_an_invalid_experiment(home, source, line, reason):
    error = failure(home, with_data(source))

    assert isinstance(error, TaskError)
    assert error.exit_code == 2
    assert str(error) == f"{TASK}:{line}: train_data raises {reason}"
    assert not (home / "experiments" / "tiny" / "data").exists()
