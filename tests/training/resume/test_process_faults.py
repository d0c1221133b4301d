"""Processes that are signalled, killed or out of memory at each point of a run, and continue."""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_cases import left_over, outcome_of, run_forked
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core.cli.main import run

TOML = """
[train]
epochs = 2
batch_size = 16

[checkpoints]
every_n_steps = 2
"""
HIT = """
import os


def hit(point):
    if os.environ.get("HIT_AT") == point:
        del os.environ["HIT_AT"]
        os.kill(os.getpid(), int(os.environ["HIT_BY"]))


hit("task file")
"""
POINTS = {
    "def train_data():": "hit('data')",
    "def optimizers(module_pool):": "hit('optimizers')",
    "def train_step(module_pool, batch, run):": "hit(f'step {run.step}')",
    "def eval_step(module_pool, batch, run):": "hit(f'eval {run.epoch}')",
}
TASK = (
    HIT
    + TINY_TASK.replace("(module_pool, batch):", "(module_pool, batch, run):")
    + """

def weights_ready(run):
    hit("first commit")


def run_started(run):
    hit("start")


def train_step_finished(run):
    hit(f"mid-epoch commit {run.step}")


def checkpoint_committed(run, receipt):
    hit(f"commit {receipt.commit}")


def epoch_finished(run):
    hit(f"epoch {run.epoch}")


def run_finished(run):
    hit("close")
"""
)
for head, call in POINTS.items():
    TASK = TASK.replace(head, f"{head}\n    {call}")
BEFORE = ("task file", "data", "optimizers")
WITHIN = (
    *("first commit", "commit 1", "start", "eval 0", "epoch 0", "step 0", "step 1"),
    *("mid-epoch commit 2", "commit 4", "step 2", "eval 1", "epoch 1", "step 5", "eval 2"),
)
LATE = ("epoch 2", "close")


def write(home: Path, name: str, task: str = TASK) -> Path:
    return write_experiment(home, name, task=task, toml=TOML)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the run comes to that nothing stops; what it imports, forks need not import again."""
    path = write(tmp_path_factory.mktemp("home"), "whole")
    assert run(["train", str(path)]) == 0
    return outcome_of(path)


def hit(path: Path, point: str, number: int) -> tuple[int, str]:
    """Train up to a point at which the process sends itself a signal."""
    environment = {"HIT_AT": point, "HIT_BY": str(int(number))}
    code, _, errors = run_forked("train", path, before=lambda: os.environ.update(environment))
    return code, errors


def check_goes_on(path: Path, whole: object) -> None:
    """Check that the run continues without repair, comes to the same, and leaves nothing else."""
    code, _, errors = run_forked("train", path, "--resume")
    assert (code, errors) == (0, "")
    assert outcome_of(path) == whole
    assert left_over(path) == []
    assert json.loads((path / "data/run.json").read_text())["state"] == "finished"


def check_signal(path: Path, point: str, number: int, whole: object) -> None:
    code, errors = hit(path, point, number)

    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        assert (code, errors) == (-number, "")
    elif point in BEFORE:
        assert code == (130 if number == signal.SIGINT else -number)
        assert errors.strip() == ("interrupted" if number == signal.SIGINT else "")
    elif point in WITHIN:
        assert code == 128 + number
        assert errors.startswith(f"{name}: stopped and saved; epoch ")
        assert errors.endswith(" --resume\n")
        assert left_over(path) == []
    else:  # nothing was left to stop
        assert (code, errors) == (0, "")
    assert (path / "data").exists() == (point not in BEFORE)
    check_goes_on(path, whole)


@pytest.mark.parametrize(
    ("point", "number"),
    [
        ("optimizers", signal.SIGTERM),
        ("first commit", signal.SIGKILL),
        ("commit 4", signal.SIGHUP),
        ("close", signal.SIGINT),
    ],
)
def test_a_signal_at_a_point_of_a_run_costs_nothing(tmp_path, whole, point, number):
    check_signal(write(tmp_path, "hit"), point, number, whole)


@pytest.mark.long
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name
)
@pytest.mark.parametrize("point", [*BEFORE, *WITHIN, *LATE])
def test_any_signal_at_each_point_of_a_run_costs_nothing(tmp_path, whole, point, number):
    check_signal(write(tmp_path, "hit"), point, number, whole)


class Writes:
    """Counts what a process changes below a folder, by Python's own audit events.

    Args:
        folder: The folder.
        number: The change before which ``act`` is called.
        act: What to do there.
    """

    _EVENTS = frozenset(f"os.{n}" for n in ("rename", "remove", "mkdir", "rmdir", "link"))

    def __init__(self, folder: Path, number: int, act: Callable[[int], object]) -> None:
        self.count = 0
        self._folder = str(folder)
        self._number = number
        self._act = act

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            is_change = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            is_change = event in self._EVENTS or event == "os.truncate"
        if not is_change or isinstance(arguments[0], int):
            return
        if not os.fsdecode(arguments[0]).startswith(self._folder):
            return
        self.count += 1
        if self.count == self._number:
            self._act(self.count)

    def install(self) -> None:
        sys.addaudithook(self)


def kill(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_writes(home: Path, whole: object, *, first: int, every: int) -> int:
    """Kill a run at its writes, and let it continue each time; give how many met it."""
    number = first
    while True:
        path = write(home, f"killed_{number}")
        writes = Writes(path / "data", number, kill)
        code, _, _ = run_forked("train", path, before=writes.install)
        if code == 0:
            return (number - first) // every
        assert code == -signal.SIGKILL
        check_goes_on(path, whole)
        number += every


def test_a_kill_at_writes_of_a_run_costs_nothing(tmp_path, whole):
    assert kill_at_writes(tmp_path, whole, first=36, every=49) >= 2


@pytest.mark.long
def test_a_kill_at_each_write_of_a_run_costs_nothing(tmp_path, whole):
    assert kill_at_writes(tmp_path, whole, first=1, every=1) > 100


def test_a_kill_in_the_midst_of_the_record_leaves_no_half_of_it(tmp_path, whole):
    path = write(tmp_path, "half")

    def before() -> None:
        Path.replace = lambda *_: kill(0)  # type: ignore[assignment,method-assign]

    assert run_forked("train", path, before=before)[0] == -signal.SIGKILL
    assert ".writing-run.json" in left_over(path)
    check_goes_on(path, whole)


def limit_memory(more_bytes: int) -> None:
    """Let the process have so much more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes, used + more_bytes))


@pytest.mark.parametrize(
    ("allocation", "told"),
    [
        ("bytearray(1 << 34)", "train_step raises MemoryError (epoch 2, step 5, batch 2)\n"),
        ("torch.empty(1 << 32)", "DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_step_that_runs_out_of_memory_is_named_and_the_run_continues(
    tmp_path, whole, allocation, told
):
    task = TASK.replace(
        "hit(f'step {run.step}')", f"os.environ.get('FULL') and run.step == 4 and {allocation}"
    )
    path = write(tmp_path, "full", task)

    def before() -> None:
        os.environ["FULL"] = "yes"
        limit_memory(1 << 29)

    code, _, errors = run_forked("train", path, before=before)

    assert code == 1
    assert errors.startswith(f"error: {path}/pymodules/task.py:")
    assert told in errors
    assert 'File "/work' not in errors
    assert "bug in pymodules" not in errors
    check_goes_on(path, whole)


def test_a_save_that_runs_out_of_memory_is_not_a_bug_and_the_run_continues(tmp_path):
    path = write(tmp_path, "saving")
    (path / "pymodules/modules/net.py").write_text(
        TINY_MODULE + 'import torch\nmodule.register_buffer("large", torch.zeros(1 << 24))\n'
    )

    def before() -> None:
        # What optimizers import only now needs memory as well.
        import torch._dynamo  # noqa: F401

        os.environ["HIT_AT"], os.environ["HIT_BY"] = "first commit", str(int(signal.SIGUSR1))
        signal.signal(signal.SIGUSR1, lambda *_: limit_memory(1 << 25))

    code, _, errors = run_forked("train", path, before=before)

    assert code == 1
    assert "Cannot allocate memory" in errors
    assert errors.endswith(
        "\n  fix: free memory, or train on a machine that has more; checkpoints saved before are "
        "intact\n"
    )
    assert run_forked("train", path, "--resume", "--epochs", "1")[0] == 0
