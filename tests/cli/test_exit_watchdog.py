"""What other people's code leaves behind keeps no process that is done."""

import os
import subprocess
import sys
import time

import pytest

from pymodules_core.testing import write_distribution, write_experiment

HOOK = "from pymodules_core import hookimpl\n@hookimpl\ndef run_started():\n    pass\n"
COMMAND = """
import sys
from pymodules_core.cli import exit_watchdog, main

exit_watchdog.WARN_AFTER_S, exit_watchdog.ENDED_AFTER_S = {told_s}, {ended_s}
sys.argv = ["pymodules", "list", {argument!r}]
main.main()
"""


def start(folder, *, argument="--no-plugins", told_s=0.3, ended_s=0.4):
    """Run the command with a plugin of ``folder``, and shorter times."""
    code = COMMAND.format(argument=argument, told_s=told_s, ended_s=ended_s)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("left", "named"),
    [
        (
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(600,), name='poller').start()\n",
            "threads are running that are not daemons: poller",
        ),
        (
            "import atexit, time\ndef wait():\n    time.sleep(600)\natexit.register(wait)\n",
            "in wait\n    time.sleep(600)",
        ),
        (
            # It ends after the process that started it, which it holds the output of.
            "import multiprocessing, os, time\n"
            "def wait(parent):\n"
            "    while os.getppid() == parent:\n        time.sleep(0.05)\n"
            "forks = multiprocessing.get_context('fork')\n"
            "forks.Process(target=wait, args=(os.getpid(),)).start()\n",
            "in _exit_function",
        ),
    ],
    ids=["thread", "exit handler", "child process"],
)
def test_what_a_plugin_leaves_behind_is_named_and_ended_with(tmp_path, left, named):
    write_distribution(tmp_path, "acme-left", left + HOOK)

    result = start(tmp_path, argument="--json")

    assert result.returncode == 0
    assert result.stdout.startswith("[")  # all of it was written
    told, ended = result.stderr.split("s at the latest: all is done, but ")[1].split(
        "warning: the process ends now, although "
    )
    assert named in told
    assert named in ended


def test_the_exit_code_is_that_of_the_command(tmp_path):
    left = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
    write_distribution(tmp_path, "acme-left", left + HOOK)

    path = write_experiment(tmp_path / "data", toml='[modules.override]\nnett = "files"\n')

    result = start(tmp_path, argument=str(path))

    assert result.returncode == 2
    assert "the process ends now" in result.stderr


def test_a_daemon_keeps_no_process_and_nothing_is_said(tmp_path):
    left = "import threading, time\n"
    left += "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    write_distribution(tmp_path, "acme-left", left + HOOK)
    begin = time.monotonic()

    result = start(tmp_path, argument="--json", told_s=60, ended_s=120)

    assert result.returncode == 0
    assert time.monotonic() - begin < 30
    assert "ends" not in result.stderr
