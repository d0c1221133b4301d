"""``train --nproc``, and ``train`` under torchrun: real processes, two of them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from rank_cases import launch as torchrun
from support import TINY_TASK, start_command, write_experiment

from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.cli.launch import _report_failed
from pymodules_core.cli.main import run

TWO = ("--nproc", "2")
STOPPED = "stopped and saved; epoch"
# What a task does after a step: {0} is when, {1} what.
AFTER_STEP = """

import os, pathlib, signal, time

RANK = int(os.environ.get("RANK", 0))


def train_step_finished(run):
    if {0}:
        {1}
"""
TELL_SELF = """

import json, os, pathlib, sys


def run_started(run):
    names = ("OMP_NUM_THREADS", "RANK", "WORLD_SIZE", "PYMODULES_DISABLE_PLUGINS")
    told = {"argv": sys.argv[1:], "path": sys.path[0]} | {n: os.environ.get(n) for n in names}
    pathlib.Path(f"process_{os.environ['RANK']}.json").write_text(json.dumps(told))
"""
# The disk of the first process takes no further file.
FULL_DISK = """

import errno

from pymodules_core.checkpoints.store.file_system import Disk

FULL = RANK == 0 and "FULL" in os.environ


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
"""
OUCH = 'raise ValueError("ouch")'
DIE = "os.kill(os.getpid(), signal.SIGKILL)"
MEMORY = "see whether memory ran out (dmesg), or who killed it"
ENDLESS = "[train]\nepochs = 100000\nbatch_size = 16\n"


def write_tiny(home: Path, when: str = "False", what: str = "pass", **options) -> Path:
    return write_experiment(home, task=TINY_TASK + AFTER_STEP.format(when, what), **options)


def epochs_in(output: str) -> list[str]:
    return [line.split("  ")[0] for line in output.splitlines() if line.startswith("epoch ")]


def state_of(path: Path) -> str:
    return json.loads((path / "data" / "run.json").read_text())["state"]


def last_weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "data" / "module_ckps" / "last" / "net.pt")


def train_and_signal(*numbers: signal.Signals, options=(), after_s=0.0):
    """Train in two processes, and send signals to the launcher once the file ``go`` is there."""
    command = [sys.executable, "-m", "pymodules_core", "train", "tiny", *TWO, *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # as from a terminal: the processes are not in its group
    ) as process:
        while not Path("go").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        for place, number in enumerate(numbers):
            time.sleep(after_s if place else 0.0)
            process.send_signal(number)
        try:
            output, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()  # else the end of the block waits for it
            raise
    return process.returncode, output, errors


def test_processes_train_together_and_the_first_one_prints(home):
    path = write_experiment(home, task=TINY_TASK + TELL_SELF)

    trained = start_command("train", "tiny", *TWO)

    assert (trained.returncode, trained.stderr) == (0, "")
    assert epochs_in(trained.stdout) == ["epoch 0/2", "epoch 1/2", "epoch 2/2"]
    assert trained.stdout.count("tiny: 2 epochs, 6 steps") == 1
    assert trained.stdout.count("checkpoints  data/experiments") == 1
    assert state_of(path) == "finished"
    told = [json.loads(Path(f"process_{rank}.json").read_text()) for rank in (0, 1)]
    assert [process["RANK"] for process in told] == ["0", "1"]
    assert [process["WORLD_SIZE"] for process in told] == ["2", "2"]


def test_each_process_gets_the_options_and_a_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write_experiment(Path("my data"), task=TINY_TASK + TELL_SELF)
    options = (
        *("-s", "train.seed=7", "--epochs", "1", "--device", "cpu", "--data-home", "my data"),
        *("--no-plugins", "-s", "task.note=$HOME$$ {x}"),
    )
    program = Path(sys.executable).with_name("pymodules")

    trained = subprocess.run(
        [program, "train", "tiny", *TWO, *options], capture_output=True, text=True, check=False
    )

    assert trained.returncode == 0, trained.stderr
    told = [json.loads(Path(f"process_{rank}.json").read_text()) for rank in (0, 1)]
    cores = len(os.sched_getaffinity(0))
    for process in told:
        assert process["argv"] == [
            *("train", "tiny", "--yes", "--set=train.seed=7"),
            "--set=task.note=$HOME$$ {x}",
            *("--data-home=my data", "--epochs=1", "--device=cpu", "--no-plugins"),
        ]
        assert process["OMP_NUM_THREADS"] == str(max(1, cores // 2))
        assert process["PYMODULES_DISABLE_PLUGINS"] == "*"
        assert process["path"] != str(tmp_path)  # as of the command itself


@pytest.mark.parametrize(("rank", "where"), [(0, ""), (1, "process 1: ")])
def test_the_process_that_fails_reports_why_and_nobody_else_says_a_word(home, rank, where):
    path = write_tiny(home, f"run.step == 4 and RANK == {rank}", OUCH)

    failed = start_command("train", "tiny", *TWO)

    assert failed.returncode == 1
    assert failed.stderr.startswith(
        f"error: {where}data/experiments/tiny/pymodules/task.py:43: train_step_finished raises "
        "ValueError: ouch\n"
    )
    assert failed.stderr.count("ouch") == 3  # and in the lines of the task
    assert "Traceback" not in failed.stderr
    assert state_of(path) == "failed"


def test_an_error_that_ends_a_run_which_has_begun_exits_with_1_whatever_its_class(home):
    write_tiny(home, "run.step == 4", "run.gather(torch.zeros(1, 1 + RANK))")

    failed = start_command("train", "tiny", *TWO)

    assert failed.returncode == 1
    assert "processes gather rows of tensors that differ" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("end", "how", "fix"),
    [
        (DIE, "was ended by SIGKILL", MEMORY),
        ("os._exit(7)", "ended with exit code 7, without a word", "look for what calls os._exit"),
    ],
)
def test_of_a_process_that_can_say_nothing_the_launcher_reports_how_it_ended(home, end, how, fix):
    write_tiny(home, "run.step == 4 and RANK == 0", end)

    failed = start_command("train", "tiny", *TWO)

    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: process 0 {how}\n  fix: {fix}")
    assert failed.stderr.endswith("; --resume resumes from the latest commit\n")
    assert failed.stderr.count("\n") == 2


@pytest.mark.parametrize(
    ("code", "how", "fix"),
    [
        (-signal.SIGABRT, "was ended by SIGABRT", "read what the library that gave up wrote above"),
        (-signal.SIGSEGV, "was ended by SIGSEGV", "PYTHONFAULTHANDLER=1 shows the line"),
        (-signal.SIGBUS, "was ended by SIGBUS", "PYTHONFAULTHANDLER=1 shows the line"),
        (-signal.SIGTERM, "was ended by SIGTERM", "see who sent it; --resume"),
        (-signal.SIGKILL, "was ended by SIGKILL", MEMORY),
        (-99, "was ended by signal 99", "see who sent it; --resume"),
    ],
)
def test_what_to_look_at_hangs_on_the_signal(capsys, code, how, fix):
    _report_failed({1: code})

    assert capsys.readouterr().err.startswith(f"error: process 1 {how}\n  fix: {fix}")


@pytest.mark.long
@pytest.mark.parametrize(
    ("start", "shared"),
    [
        ("nproc", 'parallel = "ddp"'),
        ("nproc", 'parallel = "fsdp"'),
        ("nproc", 'parallel = "fsdp"\nsharded = true'),
        ("torchrun", 'parallel = "ddp"'),
    ],
    ids=["ddp", "gathered", "sharded", "torchrun"],
)
def test_where_the_first_process_cannot_save_all_end_and_what_was_saved_continues(
    home, start, shared
):
    toml = f"[train]\nepochs = 3\nbatch_size = 16\n[modules.settings.net]\n{shared}\n"
    path = write_tiny(home, "run.step == 4 and FULL", "Disk.create = no_room", toml=toml)
    with (path / "pymodules" / "task.py").open("a") as task:
        task.write(FULL_DISK)
    layout = Layout(path / "data" / "module_ckps")
    began = time.monotonic()

    command = ("train", "tiny")
    failed = (
        start_command(*command, *TWO, FULL="yes")
        if start == "nproc"
        else torchrun(2, "-m", "pymodules_core", *command, FULL="yes")
    )
    took_s = time.monotonic() - began
    step = readable_records(layout)[0].step
    staged = list(layout.stage.iterdir())
    resumed = start_command(*command, "--resume", *TWO)

    assert failed.returncode == 1
    assert failed.stderr.startswith(
        "error: data/experiments/tiny/data/module_ckps: cannot be written: No space left on device"
    )
    assert failed.stderr.count("error: ") == 1
    assert took_s < 60
    assert (step, staged) == (3, [])
    assert resumed.returncode == 0, resumed.stderr
    assert state_of(path) == "finished"


def test_an_experiment_that_is_not_valid_is_reported_once_with_exit_code_2_and_not_tried_again(
    home,
):
    path = write_experiment(home, modules={"net": "module = 3\n"})

    failed = start_command("train", "tiny", *TWO, "--max-restarts", "3")

    assert failed.returncode == 2
    assert failed.stderr.count("error: ") == 1
    assert "modules/net.py" in failed.stderr
    assert "restart" not in failed.stderr
    assert not (path / "data").exists()


def test_what_takes_one_process_long_to_report_is_reported_to_the_end(home):
    source = """
        import os, time

        class Slow(ValueError):
            def __str__(self):
                time.sleep(1.0 if os.environ["RANK"] == "0" else 0.0)
                return "ouch"

        raise Slow
    """
    write_experiment(home, modules={"net": textwrap.dedent(source)})

    failed = start_command("train", "tiny", *TWO)

    assert failed.returncode == 2
    assert failed.stderr.count("error: ") == 1
    assert failed.stderr.endswith("Slow: ouch  (--debug shows every frame)\n")


def test_what_needs_no_torch_to_be_refused_is_refused_before_it_is_imported(home):
    path = write_experiment(home)
    (path / "data").mkdir()
    (path / "data" / "run.json").write_text("{}")
    source = (
        "import sys\n"
        "from pymodules_core.cli.main import run\n"
        "codes = [run(['train', name, '--nproc', '2']) for name in ('nothing', 'tiny')]\n"
        "print(codes, 'torch' in sys.modules)\n"
    )

    refused = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )

    assert refused.stdout == "[2, 2] False\n"
    assert "no experiment 'nothing'" in refused.stderr
    assert "experiment 'tiny' has a run already" in refused.stderr


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--nproc", "0"], {}, "0 is not in the range x>=1"),
        (
            ["--nproc", "2"],
            {"RANK": "0", "WORLD_SIZE": "1"},
            "leave --nproc out under torchrun",
        ),
        (["--max-restarts", "2"], {}, "torchrun --max-restarts=2"),
    ],
)
def test_options_that_contradict_the_launch_are_refused(
    home, capsys, monkeypatch, options, environment, message
):
    write_experiment(home)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    code = run(["train", "tiny", *options])

    assert code == 2
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_a_run_whose_processes_are_killed_continues_and_ends_as_if_nothing_had_been(home):
    toml = "[train]\nepochs = 4\nbatch_size = 16\n[checkpoints]\nevery_n_steps = 1\n"
    once = "run.step == {} and RANK == {} and not pathlib.Path('{}').exists()"
    kill = "pathlib.Path('{}').touch(); " + DIE
    path = write_experiment(
        home,
        toml=toml,
        task=TINY_TASK
        + AFTER_STEP.format(once.format(5, 0, "first"), kill.format("first"))
        + f"    if {once.format(8, 1, 'second')}:\n        {kill.format('second')}\n",
    )
    whole = write_experiment(home, "whole", toml=toml)
    start_command("train", "whole", *TWO)

    # An old run is moved aside once, and not at each restart.
    (path / "data").mkdir()
    (path / "data" / "run.json").write_text("{}")
    trained = start_command("train", "tiny", *TWO, "--reset", "--max-restarts", "5")

    assert trained.returncode == 0
    assert trained.stderr.splitlines() == [
        "error: process 0 was ended by SIGKILL",
        f"  fix: {MEMORY}; --resume resumes from the latest commit",
        "resuming from the latest commit (restart 1 of 5)",
        "error: process 1 was ended by SIGKILL",
        f"  fix: {MEMORY}; --resume resumes from the latest commit",
        "resuming from the latest commit (restart 2 of 5)",
    ]
    assert sorted(entry.name for entry in path.glob("data*")) == ["data", "data.1"]
    expected = last_weights(whole)
    assert all(torch.equal(value, expected[key]) for key, value in last_weights(path).items())


def test_a_process_that_dies_before_the_old_run_is_moved_does_not_make_it_continue(home):
    module = "import os, pathlib\nfrom torch import nn\nmodule = nn.Linear(4, 1)\nsettings = {}\n"
    die_once = (
        "if not pathlib.Path('died').exists() and 'RANK' in os.environ:\n"
        "    pathlib.Path('died').touch()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    path = write_experiment(home, modules={"net": module})
    assert run(["train", "tiny"]) == 0
    (path / "pymodules" / "modules" / "net.py").write_text(module + die_once)

    trained = start_command("train", "tiny", "--nproc", "1", "--reset", "--max-restarts", "1")

    assert trained.returncode == 0, trained.stderr
    assert "the old run is now in data/experiments/tiny/data.1" in trained.stdout
    assert epochs_in(trained.stdout) == ["epoch 0/2", "epoch 1/2", "epoch 2/2"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_a_signal_to_the_launcher_ends_all_saved_with_its_exit_code(home, number, code):
    path = write_tiny(home, "run.step > 3", "pathlib.Path('go').touch()", toml=ENDLESS)

    returned, output, errors = train_and_signal(number, options=("--max-restarts", "3"))

    assert returned == code
    assert output.count(f"{number.name}: finishing this step and saving") == 1
    assert errors.startswith(f"{number.name}: {STOPPED}")
    assert errors.count("\n") == 2
    assert state_of(path) == "interrupted"


def test_a_signal_to_one_process_ends_all_saved(home):
    path = write_tiny(home, "run.step == 4 and RANK == 1", "os.kill(os.getpid(), signal.SIGTERM)")

    ended = start_command("train", "tiny", *TWO, "--max-restarts", "3")

    assert ended.returncode == 143
    assert ended.stderr.startswith(f"SIGTERM: {STOPPED}")
    assert state_of(path) == "interrupted"


def test_a_second_signal_ends_a_run_whose_step_does_not_end(home):
    write_tiny(home, "run.step == 4", "pathlib.Path('go').touch(); time.sleep(1000)")

    returned, _, errors = train_and_signal(signal.SIGINT, signal.SIGINT, after_s=4.0)

    assert returned == 130
    assert errors.split() == ["interrupted"]


def test_torchruns_processes_report_one_error_that_its_summary_has_and_with_debug_why_others_end(
    home,
):
    write_tiny(home, "run.step == 4 and RANK == 1", OUCH)

    failed = torchrun(2, "-m", "pymodules_core", "train", "tiny", "--debug")

    assert failed.returncode == 1
    assert (
        failed.stderr.count("\nerror: process 1: data/experiments/tiny/pymodules/task.py:43") == 1
    )
    assert (
        "process 0 ends: process 1 failed: train_step_finished raises ValueError: ouch"
        in failed.stderr
    )
    assert "traceback : data/experiments/tiny/pymodules/task.py:43: " in failed.stderr
    assert epochs_in(failed.stdout) == ["epoch 0/2", "epoch 1/2"]


def test_what_torchrun_restarts_resumes_and_a_signal_is_not_a_failure_to_it(home):
    once = "run.step == 4 and RANK == {} and not pathlib.Path('died').exists()"
    path = write_experiment(
        home,
        task=TINY_TASK
        + AFTER_STEP.format(once.format(1), "pathlib.Path('died').touch(); " + DIE)
        + "    if run.step == 5:\n        os.kill(os.getpid(), signal.SIGTERM)\n",
    )

    command = ("--max-restarts", "3", "-m", "pymodules_core", "train", "tiny", "--reset")
    # With the store that torchrun shares, where the processes before have left their addresses.
    ended = torchrun(2, *command, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="0")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("resumed after epoch 1, step 3") == 1
    assert ended.stderr.count(f"SIGTERM: {STOPPED} 2, step ") == 1
    assert state_of(path) == "interrupted"
    assert [entry.name for entry in path.glob("data*")] == ["data"]


def test_torchruns_processes_report_an_experiment_that_is_not_there_once(home):
    failed = torchrun(2, "-m", "pymodules_core", "train", "nothing")

    assert failed.returncode == 1
    assert failed.stderr.count("error: ") == 1
    assert "error: no experiment 'nothing'" in failed.stderr
