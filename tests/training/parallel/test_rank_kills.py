"""Processes are killed at random, and the run, restarted, ends as if they were not."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rank_cases import TIMEOUT_S, assert_same_bits, copy_example, shared

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc"
)

KILLS = 10
# A start takes 4 s or so; some kills are to come while processes find each other.
LEAST_S, MOST_S = 2.0, 9.0


def start(path: Path, log: Path, overrides: dict[str, object]) -> subprocess.Popen[str]:
    named = {key.replace("__", "."): _toml(value) for key, value in overrides.items()}
    settings = [f"--set={key}={text}" for key, text in named.items()]
    command = [sys.executable, "-m", "pymodules_core", "train", str(path), *settings]
    command += ["--nproc", "2", "--max-restarts", str(2 * KILLS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, text=True, env=environment
        )


def _toml(value: object) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def ranks_of(launcher: int) -> list[int]:
    """Return the processes that a launcher started and that train."""
    found: list[int] = []
    ranks = []
    # What is looked at may end meanwhile.
    for file in Path(f"/proc/{launcher}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, file.read_text().split())
    for pid in found:
        with suppress(OSError):
            if b"pymodules_core" in Path(f"/proc/{pid}/cmdline").read_bytes():
                ranks.append(pid)
    return ranks


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_run_whose_processes_are_killed_ends_as_if_they_were_not(tmp_path, kind):
    overrides = {
        **shared(kind, sharded=kind == "fsdp"),
        "train__epochs": 25,
        "checkpoints__every_n_steps": 5,
        "checkpoints__keep_epochs": 3,
    }
    whole, killed = (copy_example(tmp_path, name) for name in ("whole", "killed"))
    assert start(whole, tmp_path / "whole.log", overrides).wait(TIMEOUT_S) == 0
    chance = random.Random(kind)

    launcher = start(killed, tmp_path / "killed.log", overrides)
    kills = 0
    while launcher.poll() is None and kills < KILLS:
        time.sleep(chance.uniform(LEAST_S, MOST_S))
        if ranks := ranks_of(launcher.pid):
            with suppress(ProcessLookupError):
                os.kill(chance.choice(ranks), signal.SIGKILL)
                kills += 1
    code = launcher.wait(TIMEOUT_S)

    assert code == 0, (tmp_path / "killed.log").read_text()[-3000:]
    assert kills >= KILLS // 2
    assert_same_bits(killed, whole)
