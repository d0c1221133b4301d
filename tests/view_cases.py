"""Runs written by hand, for views: what a test is about is all it has to say."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support import write_experiment

FACTS: dict[str, Any] = {
    "state": "finished",
    "seed": 0,
    "device": "cpu",
    "settings": {"train": {"epochs": 2, "seed": 0, "monitor": "loss", "mode": "min"}},
    "overrides": {},
    "modules": [
        {
            "name": "net",
            "class": "Linear",
            "frozen": False,
            "parameters": 1234,
            "weights": None,
            "origin": {"kind": "file", "file": "pymodules/modules/net.py", "sha256": "ab" * 32},
        }
    ],
    "files": {"modules/net.py": "ab" * 32},
    "plugins": [],
    "versions": {"torch": "2.13.0"},
    "git_commit": None,
    "host": "some-machine",
    "process": 1,
    "updated": "2026-03-04T05:06:07+00:00",
    "wall_s": 61.5,
    "epoch": 2,
    "epochs": 2,
    "step": 6,
    "best": {"metric": "loss", "value": 0.5, "epoch": 2},
    "stop_reason": "all 2 epochs done",
    "error": None,
}


def row(epoch: int, phase: str = "eval", *, step: int | None = None, **metrics: Any) -> dict:
    """Return a row of the log, of three steps an epoch."""
    return {
        "epoch": epoch,
        "step": 3 * epoch if step is None else step,
        "phase": phase,
        "metrics": metrics,
    }


ROWS = [
    row(0, loss=2.0),
    row(1, "train", loss=1.5) | {"learning_rates": {"main": 0.1}},
    row(1, loss=1.0),
    row(2, "train", loss=0.75) | {"learning_rates": {"main": 0.05}},
    row(2, loss=0.5),
]


def write_run(
    home: Path,
    name: str = "tiny",
    *,
    rows: Iterable[dict] = ROWS,
    tail: str = "",
    run_text: str | None = None,
    **facts: Any,
) -> Path:
    """Write an experiment and a run of it.

    Args:
        home: The data home.
        name: The experiment.
        rows: Of ``metrics.jsonl``.
        tail: What follows them there.
        run_text: The whole of ``run.json``, where that is not JSON.
        facts: What ``run.json`` has otherwise than ``FACTS``.
    """
    path = write_experiment(home, name)
    (path / "data").mkdir()
    text = json.dumps({**FACTS, **facts}) if run_text is None else run_text
    (path / "data" / "run.json").write_text(text)
    log = "".join(f"{json.dumps(one)}\n" for one in rows)
    (path / "data" / "metrics.jsonl").write_text(f"{log}{tail}")
    return path


def settings(**train: Any) -> dict[str, Any]:
    """Return settings that differ from those of ``FACTS`` in ``[train]``."""
    return {"train": {**FACTS["settings"]["train"], **train}}
