"""The commands, run as a user runs them."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import TINY_TASK, start_command, write_experiment

from pymodules_core.cli.main import run

EXECUTED = "raise RuntimeError('this file was executed')\n"


COMMANDS = (
    *("new", "list", "plugins", "check", "train", "eval"),
    *("status", "compare", "plot", "ckpt"),
)


def test_help_names_every_command(capsys):
    code = run(["--help"])

    output = capsys.readouterr().out
    assert code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(capsys, name):
    code = run([name, "--help"])

    assert code == 0
    assert f"Usage: pymodules {name}" in capsys.readouterr().out


def test_an_unknown_command_is_reported_with_the_closest(capsys):
    code = run(["lst"])

    assert code == 2
    assert "no command 'lst'; there are: new, new-plugin, list," in capsys.readouterr().err


def test_list_reports_everything_without_executing_a_file(home, capsys):
    write_experiment(
        home,
        "other",
        modules={
            "plain": f'"""A plain one."""\n{EXECUTED}settings = {{}}\n',
            "cold": f'{EXECUTED}settings = {{"frozen": True, "load_weights_from_exp": '
            '{"exp_name": "a", "ckp_pool_name": "best", "module_name": "b"}}\n',
            "computed": f"{EXECUTED}settings = make_settings()\n",
            "_helper": EXECUTED,
        },
    )

    code = run(["list", "other", "--json"])

    modules = json.loads(capsys.readouterr().out)
    assert code == 0
    keys = ("name", "frozen", "dynamic", "weights", "description", "parameters")
    assert [tuple(module[key] for key in keys) for module in modules] == [
        ("cold", True, False, "a/best/b", "", None),
        ("computed", None, True, None, "", None),
        ("plain", False, False, None, "A plain one.", None),
    ]
    assert modules[0]["origin"]["kind"] == "file"
    assert modules[0]["origin"]["file"] == "data/experiments/other/pymodules/modules/cold.py"


def test_list_imports_no_torch(home):
    write_experiment(home)
    script = (
        "import sys; from pymodules_core.cli.main import run; "
        "code = run(['list', 'tiny']); print('torch' in sys.modules, code)"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines()[-1] == "False 0"


def test_list_shows_a_file_that_cannot_be_parsed_as_a_problem(home, capsys):
    write_experiment(home, modules={"net": "module = (\n", "good": "settings = {}\n"})

    code = run(["list", "tiny"])

    captured = capsys.readouterr()
    assert code == 0
    assert captured.err == "problem: module 'net': line 1: '(' was never closed\n"
    assert captured.out.splitlines()[1].startswith("good    no")


def test_list_counts_parameters_from_the_run_or_by_building(home, capsys):
    write_experiment(home)

    run(["list", "tiny", "--build", "--json"])

    assert json.loads(capsys.readouterr().out)[0]["parameters"] == 5


def test_train_says_what_it_did_and_where_it_is(home, capsys):
    write_experiment(home)

    code = run(["train", "tiny", "-s", "train.seed=3", "--epochs", "1"])

    output = capsys.readouterr().out
    assert code == 0
    assert "tiny: 1 epoch, 3 steps in" in output
    assert "data/experiments/tiny/data/module_ckps/<pool>/<module_name>.pt" in output
    assert "pools frzn, init, last, best, epoch_1: 4 files" in output
    record = json.loads((home / "experiments/tiny/data/run.json").read_text())
    assert record["overrides"] == {"train.seed": 3, "train.epochs": 1}


def test_train_twice_is_refused_and_reset_moves_the_first(home, capsys):
    path = write_experiment(home)
    run(["train", "tiny"])
    capsys.readouterr()

    refused = run(["train", "tiny"])
    message = capsys.readouterr().err
    done = run(["train", "tiny", "--reset"])

    assert (refused, done) == (2, 0)
    assert message == (
        "error: data/experiments/tiny/data: experiment 'tiny' has a run already "
        "(finished, epoch 2)\n"
        "  fix: pymodules train tiny --resume resumes it; --reset moves it aside "
        "and starts again\n"
    )
    assert "the old run is now in data/experiments/tiny/data.1" in capsys.readouterr().out
    assert (path / "data.1" / "run.json").is_file()


def test_a_failing_step_shows_the_users_frames_only(home, capsys):
    write_experiment(
        home,
        task=TINY_TASK.replace("return mse_loss(", "return helper(1) + mse_loss(", 1)
        + "\n\ndef helper(x):\n    return x / 0\n",
    )

    code = run(["train", "tiny"])

    error = capsys.readouterr().err
    assert code == 1
    assert error.startswith(
        "error: data/experiments/tiny/pymodules/task.py:37: train_step raises ZeroDivisionError: "
        "division by zero (epoch 1, step 1, batch 1)\n"
    )
    assert 'task.py", line 28, in train_step' in error
    assert 'task.py", line 37, in helper' in error
    assert "pymodules_core" not in error.replace(str(home), "")
    assert error.endswith("ZeroDivisionError: division by zero  (--debug shows every frame)\n")


def test_debug_shows_every_frame(home, capsys):
    write_experiment(
        home, task=TINY_TASK.replace("return mse_loss(", "return 1 / 0 + mse_loss(", 1)
    )

    run(["train", "tiny", "--debug"])

    assert "pymodules_core/training/loop/epoch_loops.py" in capsys.readouterr().err


def test_check_writes_nothing_and_says_what_works(home, capsys):
    path = write_experiment(home)
    before = sorted(path.rglob("*"))

    code = run(["check", "tiny"])

    output = capsys.readouterr().out
    assert code == 0
    assert output.splitlines()[1].startswith("ok  module net: 5 parameters, 2 tensors")
    assert "ok  optimizers: main (SGD)" in output
    assert "ok  one train step on cpu: loss" in output
    assert "ok  one eval step: loss" in output
    assert "ok  saved and loaded again" in output
    assert sorted(path.rglob("*")) == before


def test_a_run_whose_metric_never_was_a_number_says_so(home, capsys):
    task = TINY_TASK.replace('return {"loss": ', 'return {"loss": float("nan") * ')
    write_experiment(home, task=task, toml="[train]\nepochs = 1\n")

    code = run(["train", "tiny"])

    assert code == 0
    assert "\nbest loss: none, it was never a number\n" in capsys.readouterr().out


def test_check_calls_the_hooks_of_a_run(home, capsys):
    hooks = (
        "def weights_ready(run):\n    run.module_pool.net.extra = 1\n\n\n"
        "def checkpoint_committed(run, receipt):\n    print(receipt.pools)\n\n\n"
        "def run_finished(run):\n    print('finished', run.step)\n\n\n"
    )
    step = TINY_TASK.replace(
        "    inputs, targets", "    module_pool.net.extra\n    inputs, targets"
    )
    write_experiment(home, task=hooks + step)

    code = run(["check", "tiny"])

    output = capsys.readouterr().out
    assert code == 0
    assert "('last', 'best', 'epoch_1')\nfinished 1\nok  one train step" in output


def test_check_finds_a_monitor_that_is_not_a_metric(home, capsys):
    write_experiment(home, toml='[train]\nmonitor = "acuracy"\n')

    code = run(["check", "tiny"])

    assert code == 2
    assert capsys.readouterr().err == (
        "error: data/experiments/tiny/experiment.toml:2: train.monitor: 'acuracy' is not among the "
        "metrics: loss\n"
        '  fix: [train] monitor = "loss", or return it from eval_step\n'
    )


def test_the_data_home_comes_from_option_environment_or_working_directory(
    home, capsys, monkeypatch
):
    elsewhere = home.parent / "elsewhere"
    write_experiment(elsewhere, "far")

    option = run(["list", "far", "--data-home", str(elsewhere)])
    monkeypatch.setenv("PYMODULES_DATA_HOME", str(elsewhere))
    variable = run(["list", "far"])
    monkeypatch.delenv("PYMODULES_DATA_HOME")
    path = run(["list", "elsewhere/experiments/far"])
    missing = run(["list", "far"])

    assert (option, variable, path, missing) == (0, 0, 0, 2)


@pytest.mark.parametrize("template", ["classifier", "distill", "gan"])
def test_new_writes_an_experiment_that_lists(home, capsys, template):
    code = run(["new", "mine", "--template", template])
    listed = run(["list", "mine", "--json"])

    output = capsys.readouterr().out
    assert (code, listed) == (0, 0)
    assert "wrote data/experiments/mine\n" in output
    assert not list((home / "experiments" / "mine").rglob("__pycache__"))
    assert not (home / "experiments" / "mine" / "data").exists()


def test_new_refuses_an_existing_name_and_a_bad_one(home, capsys):
    run(["new", "mine"])
    capsys.readouterr()

    existing, bad = run(["new", "mine"]), run(["new", "../mine"])

    assert (existing, bad) == (2, 2)
    assert capsys.readouterr().err == (
        "error: data/experiments/mine: there is a file or folder of that name\n"
        "  fix: choose another name, or move that one away\n"
        "error: experiment name '../mine' is not allowed: it holds a path separator\n"
        "  fix: use one plain name of letters, digits, '_', '-' and '.'\n"
    )


def test_new_says_which_experiment_comes_first(home, capsys):
    run(["new", "mine", "--template", "distill"])
    alone = capsys.readouterr().out
    run(["new", "digits_classifier"])
    run(["new", "other", "--template", "distill"])

    assert (
        "first: pymodules new digits_classifier, then pymodules train digits_classifier: its "
        "weights are the start of some modules\n"
        "next: pymodules check mine, then pymodules train mine\n"
    ) in alone
    assert "first:" not in capsys.readouterr().out


def test_a_home_that_cannot_be_written_is_named(home, capsys):
    home.mkdir()
    (home / "experiments").write_text("no folder")

    code = run(["new", "mine"])

    assert code == 1
    assert capsys.readouterr().err == (
        "error: data/experiments/mine: Not a directory\n"
        "  fix: move away what is in its place, or choose another --data-home\n"
    )


@pytest.mark.parametrize(
    ("command", "target", "option"),
    [("new", "data/experiments/mine", "--data-home"), ("new-plugin", "mine", "--folder")],
)
def test_what_a_full_disk_cuts_short_is_taken_away_again(
    home, capsys, monkeypatch, command, target, option
):
    monkeypatch.setattr(Path, "write_bytes", _raise_no_space)
    monkeypatch.setattr(Path, "write_text", _raise_no_space)

    code = run([command, "mine"])

    assert code == 1
    assert capsys.readouterr().err.splitlines()[:2] == [
        f"error: {target}: No space left on device",
        f"  fix: make room, or choose another {option}",
    ]
    assert not Path(target).exists()


def _raise_no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_plugins_lists_the_built_in_scanner(home, capsys):
    code = run(["plugins", "--json", "--no-plugins"])

    (scanner,) = json.loads(capsys.readouterr().out)
    assert code == 0
    assert scanner["name"] == "pymodules-core:directory_scanner"
    assert scanner["hooks"] == ["provide_module"]


def test_an_interrupt_exits_with_130(home):
    write_experiment(
        home,
        task=TINY_TASK.replace(
            "    return mse_loss",
            "    import os, signal\n    os.kill(os.getpid(), signal.SIGINT)\n    return mse_loss",
            1,
        ),
    )

    result = start_command("train", "tiny")

    assert result.returncode == 130
    assert "SIGINT: finishing this step and saving; once more ends at once" in result.stdout
    assert result.stderr == (
        "SIGINT: stopped and saved; epoch 1, step 1\n  fix: pymodules train tiny --resume\n"
    )


def test_a_reader_that_leaves_early_is_not_an_error(home):
    write_experiment(home)
    command = f"{sys.executable} -m pymodules_core list tiny --json | head -c 1"

    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )

    assert result.stderr == ""
