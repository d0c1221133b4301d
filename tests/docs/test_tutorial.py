"""The tutorial's transcript of an interrupted run is what happens."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def transcript() -> list[tuple[str, list[str]]]:
    """Return each command of the tutorial's text blocks with the lines shown after it."""
    page = (REPOSITORY / "docs" / "tutorial.md").read_text()
    shown: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                shown.append((line.removeprefix("$ "), []))
            else:
                shown[-1][1].append(line)
    return shown


def without_numbers(line: str) -> str:
    """Leave out what differs from machine to machine and from moment to moment."""
    # The key may be pressed within an epoch or after it.
    line = line.replace("resumed in", "resumed after")
    return re.sub(r" +best$", "", re.sub(r"\s+", " ", re.sub(r"-?[\d.,e-]*\d", "#", line)))


def interrupt(process: subprocess.Popen, after_epoch: int) -> None:
    """Press Ctrl-C once an epoch is over."""
    log = Path("data/experiments/mine/data/metrics.jsonl")
    until = time.monotonic() + 60
    while not (log.exists() and f'"epoch": {after_epoch},' in log.read_text()):
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)


def test_the_transcript_of_an_interrupted_run_is_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = transcript()
    for command, shown in commands:
        process = subprocess.Popen(
            command.replace("pymodules ", f"{sys.executable} -m pymodules_core ", 1).split()
            if command.startswith("pymodules")
            else ["bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if "^C" in shown:
            interrupt(process, after_epoch=17)
        output = process.communicate(timeout=120)[0]

        assert process.returncode == (130 if "^C" in shown else 0), output
        printed = [without_numbers(line) for line in output.splitlines()]
        for line in shown:
            # In the order shown; … stands for more of them.
            if line not in {"…", "^C"}:
                assert without_numbers(line) in printed, (line, output)
                printed = printed[printed.index(without_numbers(line)) + 1 :]

    assert [command.split()[1] for command, _ in commands if command.startswith("pymodules")] == [
        "new",
        "check",
        "train",
        "train",
        "eval",
        "plot",
    ]
