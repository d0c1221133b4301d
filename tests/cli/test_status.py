"""``pymodules status``: what it says of runs that ended, were killed, or cannot be read."""

import json
import platform
import subprocess
import sys
import time

import pytest
from support import TINY_TASK, start_command, write_experiment

from pymodules_core.cli.main import run


def test_status_reports_how_far_each_run_is(home, capsys):
    write_experiment(home, "done")
    write_experiment(home, "fresh")
    run(["train", "done"])
    capsys.readouterr()

    run(["status", "--json"])

    done, fresh = json.loads(capsys.readouterr().out)
    assert (done["name"], done["state"], done["epoch"], done["epochs"]) == (
        "done",
        "finished",
        2,
        2,
    )
    assert done["best"]["metric"] == "loss"
    assert done["size_bytes"] > 0
    assert (fresh["name"], fresh["state"], fresh["epoch"]) == ("fresh", "not trained", None)


def test_status_distinguishes_a_killed_run_from_a_running_one(home, capsys):
    path = write_experiment(
        home,
        task=TINY_TASK.replace(
            "    return mse_loss", "    import os\n    os._exit(0)\n    return mse_loss", 1
        ),
    )

    exited = start_command("train", "tiny")
    run(["status", "--json"])

    assert exited.returncode == 0  # as the code asked for; run.json knows better
    assert json.loads((path / "data/run.json").read_text())["state"] == "running"
    assert json.loads(capsys.readouterr().out)[0]["state"] == "killed"


def test_the_run_of_a_live_process_is_not_moved_from_under_it(home, tmp_path):
    path = write_experiment(
        home,
        task=TINY_TASK.replace(
            "    return mse_loss",
            f"""
    import pathlib, time
    while not pathlib.Path({str(tmp_path / "go")!r}).exists():
        time.sleep(0.01)
    return mse_loss""",
            1,
        ),
    )
    command = [sys.executable, "-m", "pymodules_core", "train", "tiny"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not (path / "data" / "module_ckps" / "best").exists():
            time.sleep(0.05)

        refused = start_command("train", "tiny", "--reset")
        (tmp_path / "go").touch()

    assert refused.returncode == 2
    assert refused.stderr == (
        "error: data/experiments/tiny/data: experiment 'tiny' is being trained by process "
        f"{process.pid} on {platform.node()}\n"
        f"  fix: wait for it, or stop it: kill {process.pid}\n"
    )
    assert process.returncode == 0
    assert not (path / "data.1").exists()


@pytest.mark.parametrize(
    "content",
    ["", "[", "3", "{}", '{"state": 3, "modules": 3}', '{"modules": [{"name": 1}], "best": {}}'],
)
def test_a_damaged_run_file_is_reported_and_takes_nothing_down(home, capsys, content):
    path = write_experiment(home)
    (path / "data").mkdir()
    (path / "data" / "run.json").write_text(content)

    codes = [run(["status"]), run(["list", "tiny"]), run(["train", "tiny"])]

    output = capsys.readouterr()
    assert codes == [0, 0, 2]
    assert "tiny        unreadable  -" in output.out
    assert output.err == (
        "error: data/experiments/tiny/data: experiment 'tiny' has a run already (without a "
        "readable run.json)\n"
        "  fix: pymodules train tiny --resume resumes it; --reset moves it aside "
        "and starts again\n"
    )
