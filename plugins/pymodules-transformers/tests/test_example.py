"""The example experiment of the repository: it learns, writes, and continues bit for bit."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from pymodules_core import Trainer
from pymodules_core.errors import RunInterruptedError

EXAMPLE = Path(__file__).parents[3] / "data" / "experiments" / "text_model"
SHORT = {"train.epochs": 1, "train.max_steps": 40}
STOP = """

def train_step_finished(run):
    import os
    import signal
    if run.step == 15 and run.resumed_step is None:
        os.kill(os.getpid(), signal.SIGINT)
"""

pytestmark = pytest.mark.skipif(
    not EXAMPLE.is_dir(), reason="the example is in the repository, and not in the package"
)


def copied(home: Path, name: str) -> Path:
    ignored = shutil.ignore_patterns("data", "data.*", "__pycache__")
    return shutil.copytree(EXAMPLE, home / "experiments" / name, ignore=ignored)


def fit(path: Path, **arguments):
    return Trainer(path, overrides=SHORT, **arguments).fit()


def test_it_learns_writes_and_continues_bit_for_bit(tmp_path):
    whole, stopped = (copied(tmp_path, name) for name in ("whole", "stopped"))
    result = fit(whole)
    task = stopped / "pymodules" / "task.py"
    task.write_text(task.read_text() + STOP)

    with pytest.raises(RunInterruptedError):
        fit(stopped)
    fit(stopped, existing="resume")

    rows = map(json.loads, (whole / "data" / "metrics.jsonl").read_text().splitlines())
    first = next(row["metrics"]["bits_per_byte"] for row in rows if row["phase"] == "eval")
    assert 7.5 < first < 8.5
    assert result.best_value < first - 2.5
    for name in ("last", "best"):
        states = [
            torch.load(path / "data/module_ckps" / name / "lm.pt", weights_only=True)
            for path in (whole, stopped)
        ]
        assert all(map(torch.equal, *(state.values() for state in states)))
    samples = [(path / "data" / "sample.txt").read_bytes() for path in (whole, stopped)]
    assert samples[0].startswith(b"The ")
    assert samples[0] == samples[1]


def test_no_eval_text_is_in_the_train_text():
    spec = importlib.util.spec_from_file_location("text_task", EXAMPLE / "pymodules" / "task.py")
    task = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(task)
    train, evaluation = task.load_split()
    known = {train[i : i + 100] for i in range(len(train) - 100)}

    leaked = sum(evaluation[i : i + 100] in known for i in range(len(evaluation) - 100))

    assert len(train) > 8 * len(evaluation) > 100_000
    assert leaked / len(evaluation) < 0.01
