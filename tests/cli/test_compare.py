"""``pymodules compare`` as a user runs it."""

import json
import subprocess
import sys

from support import write_experiment
from view_cases import settings, write_run

from pymodules_core.cli.main import run


def test_compare_prints_all_there_is_with_the_best_marked(home, capsys):
    write_run(home, "a")
    write_run(
        home,
        "longer_name",
        settings=settings(seed=3),
        best={"metric": "loss", "value": 0.25, "epoch": 1},
    )

    code = run(["compare", "a", "longer_name"])

    assert code == 0
    assert capsys.readouterr().out == (
        "EXPERIMENT           a                         longer_name\n"
        "RESULT\n"
        "state                finished                  finished\n"
        "monitor              loss (min)                loss (min)\n"
        "best value           0.5                       0.25 *\n"
        "best epoch           2                         1\n"
        "epochs               2                         2\n"
        "steps                6                         6\n"
        "wall_s               1 min 2 s                 1 min 2 s\n"
        "device               cpu                       cpu\n"
        "ended                all 2 epochs done         all 2 epochs done\n"
        "\n"
        "FINAL EVAL METRICS\n"
        "loss                 0.5 *                     0.5 *\n"
        "\n"
        "FINAL TRAIN METRICS\n"
        "loss                 0.75                      0.75\n"
        "\n"
        "SETTINGS\n"
        "train.epochs         2                         2\n"
        "train.seed           0                         3\n"
        "train.monitor        loss                      loss\n"
        "train.mode           min                       min\n"
        "\n"
        "MODULES\n"
        "net.class            Linear                    Linear\n"
        "net.parameters       1,234                     1,234\n"
        "net.frozen           false                     false\n"
        "net.weights          built                     built\n"
        "net.origin           pymodules/modules/net.py  pymodules/modules/net.py\n"
        "\n"
        "* the best loss of these (min)\n"
    )


def test_only_changed_hides_what_is_equal(home, capsys):
    write_run(home, "a", settings=settings(seed=3))
    write_run(home, "b")

    code = run(["compare", "a", "b", "--only-changed"])

    assert code == 0
    assert capsys.readouterr().out == ("EXPERIMENT  a  b\nSETTINGS\ntrain.seed  3  0\n")


def test_equal_experiments_differ_in_nothing(home, capsys):
    for name in "abc":
        write_run(home, name)

    code = run(["compare", "a", "b", "c", "--only-changed"])

    assert code == 0
    assert capsys.readouterr().out == "nothing differs\n"


def test_json_has_one_object_a_row(home, capsys):
    write_run(home, "a")
    write_run(
        home,
        "b",
        settings=settings(seed=3),
        best={"metric": "loss", "value": 0.25, "epoch": 2},
    )

    code = run(["compare", "a", "b", "--only-changed", "--json"])

    output = capsys.readouterr().out
    assert code == 0
    assert json.loads(output) == [
        {
            "group": "result",
            "key": "best value",
            "values": {"a": 0.5, "b": 0.25},
            "changed": True,
            "best": ["b"],
        },
        {
            "group": "settings",
            "key": "train.seed",
            "values": {"a": 0, "b": 3},
            "changed": True,
            "best": [],
        },
    ]
    assert len(output.splitlines()) == 2


def test_json_of_equal_experiments_is_an_empty_list(home, capsys):
    write_run(home, "a")
    write_run(home, "b")

    run(["compare", "a", "b", "--only-changed", "--json"])

    assert json.loads(capsys.readouterr().out) == []


def test_different_goals_are_said_to_have_no_best(home, capsys):
    write_run(home, "a")
    write_run(home, "b", settings=settings(mode="max"))

    run(["compare", "a", "b"])

    output = capsys.readouterr().out
    assert "*" not in output
    assert output.endswith("\n\nno best is marked: monitor or mode differ\n")


def test_long_values_are_shortened_and_lines_stay_lines(home, capsys):
    write_run(home, "a", settings={"task": {"note": "x" * 260, "lines": "one\ntwo"}})
    write_run(home, "b", settings={"task": {}})

    run(["compare", "a", "b"])

    lines = capsys.readouterr().out.splitlines()
    assert f"task.note            {'x' * 199}…  -" in lines
    assert any(line.startswith("task.lines           one two ") for line in lines)


def test_values_that_differ_look_different(home, capsys):
    weights = "experiment_of_a_name_that_has_sixty_letters/epoch_100/teacher_encoder"
    write_run(home, "a", settings={"task": {"weights": f"{weights}_1"}})
    write_run(home, "b", settings={"task": {"weights": f"{weights}_2"}})

    run(["compare", "a", "b", "--only-changed"])

    assert f"task.weights  {weights}_1  {weights}_2\n" in capsys.readouterr().out


def test_an_experiment_without_a_run_is_compared_by_its_settings(home, capsys):
    write_run(home, "a")
    write_experiment(home, "b", toml="[train]\nseed = 9\n")

    code = run(["compare", "a", "b"])

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert ["state", "finished", "not", "trained"] in lines
    assert ["train.seed", "0", "9"] in lines
    assert ["best", "value", "0.5", "-"] in lines


def test_fewer_than_two_are_a_usage_error(home, capsys):
    write_run(home, "a")

    codes = [run(["compare"]), run(["compare", "a"])]

    assert codes == [2, 2]
    assert (
        capsys.readouterr().err.count(
            "Error: name two experiments or more: pymodules compare A B\n"
        )
        == 2
    )


def test_an_experiment_that_is_not_there_is_reported_with_the_closest(home, capsys):
    write_run(home, "alpha")

    code = run(["compare", "alpha", "alhpa"])

    assert code == 2
    assert capsys.readouterr().err == (
        "error: no experiment 'alhpa' in data; there are: alpha\n"
        "  closest match: alpha\n"
        "  fix: write 'alpha', or --data-home / PYMODULES_DATA_HOME for another home\n"
    )


def test_compare_imports_no_torch(home):
    write_run(home, "a")
    write_run(home, "b")
    script = (
        "import sys; from pymodules_core.cli.main import run; "
        "code = run(['compare', 'a', 'b']); print('torch' in sys.modules, code)"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines()[-1] == "False 0"
