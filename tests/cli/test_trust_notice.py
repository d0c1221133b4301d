"""What commands say before they execute code of an experiment, and which of them execute none."""

import json

from support import GOOD_PLUGIN, TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core.cli.main import run

FOLDER = "data/experiments/tiny/pymodules"


def test_check_and_train_say_what_they_execute_before_the_first_of_it(
    install_distribution, home, capsys
):
    install_distribution("acme-good", "print('the plugin')\n" + GOOD_PLUGIN)
    install_distribution("acme-other", "raise ValueError('disabled plugins do not run')\n")
    modules = {"net": "print('the file')\n" + TINY_MODULE, "gone": "1 / 0\n", "_helper": "1 / 0\n"}
    toml = '[train]\nepochs = 1\n[modules]\nexclude = ["g*"]\n[plugins]\ndisable = ["acme-other"]\n'
    write_experiment(home, modules=modules | {"good_too": "1 / 0\n"}, toml=toml)

    run(["check", "tiny"])
    checked = capsys.readouterr().out.splitlines()
    run(["train", "tiny"])
    trained = capsys.readouterr().out.splitlines()

    line = f"executing task.py and 1 module file of {FOLDER}; plugins acme-good 1.0"
    assert checked[:3] == [line, "the plugin", "the file"]
    assert trained[:2] == [line, "the file"]  # a package is imported once in a process


def test_plugins_that_are_not_loaded_are_not_said_to_be_executed(
    install_distribution, home, capsys
):
    install_distribution("acme-good", GOOD_PLUGIN)
    write_experiment(home, modules={"net": TINY_MODULE, "other": TINY_MODULE})

    run(["check", "tiny", "--no-plugins"])

    line = f"executing task.py and 2 module files of {FOLDER}"
    assert capsys.readouterr().out.splitlines()[0] == line


def test_what_is_refused_unread_is_not_said_to_be_executed(home, capsys):
    path = write_experiment(home, modules={"type": TINY_MODULE})

    codes = [run(["check", "tiny"]), run(["train", "tiny"])]

    assert codes == [2, 2]
    assert capsys.readouterr().out == ""
    assert not (path / "data").exists()


def test_list_executes_no_file_of_a_strangers_experiment_and_writes_nothing(home, capsys):
    trap = "open('executed', 'w')\n"
    path = write_experiment(
        home,
        modules={"net": f"{trap}settings = make({trap.strip()})\n", "_helper": trap},
        task=trap + TINY_TASK,
    )
    (path / "pymodules" / "__init__.py").write_text(trap)
    (path / "pymodules" / "modules" / "__init__.py").write_text(trap)
    before = sorted(home.parent.rglob("*"))

    codes = [run(["list", "tiny"]), run(["list", "tiny", "--json"]), run(["plugins", "tiny"])]

    assert codes == [0, 0, 0]
    assert "executing" not in "".join(capsys.readouterr())
    assert sorted(home.parent.rglob("*")) == before


def test_list_says_on_standard_error_what_it_builds(home, capsys):
    write_experiment(home)

    run(["list", "tiny", "--build", "--json"])

    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["parameters"] == 5
    assert captured.err == f"executing task.py and 1 module file of {FOLDER}\n"
