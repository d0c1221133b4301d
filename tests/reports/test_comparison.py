"""Experiments side by side: which rows there are, what differs, which is best."""

import pytest
from support import write_experiment
from view_cases import FACTS, row, settings, write_run

from pymodules_core.errors import PymodulesError
from pymodules_core.reports.comparison import Group, compare, flatten
from pymodules_core.reports.subjects import open_subjects


def compared(home, *names):
    return compare(open_subjects(names, data_home=home))


def rows_of(comparison, group):
    return {one.key: one.values for one in comparison.rows if one.group is group}


def row_of(comparison, group, key):
    (found,) = [one for one in comparison.rows if (one.group, one.key) == (group, key)]
    return found


def test_results_of_runs_stand_side_by_side(tmp_path):
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", best={"metric": "loss", "value": 0.25, "epoch": 1}, step=9)

    comparison = compared(tmp_path, "a", "b")

    assert comparison.labels == ["a", "b"]
    assert rows_of(comparison, Group.RESULT) == {
        "state": {"a": "finished", "b": "finished"},
        "monitor": {"a": "loss (min)", "b": "loss (min)"},
        "best value": {"a": 0.5, "b": 0.25},
        "best epoch": {"a": 2, "b": 1},
        "epochs": {"a": 2, "b": 2},
        "steps": {"a": 6, "b": 9},
        "wall_s": {"a": 61.5, "b": 61.5},
        "device": {"a": "cpu", "b": "cpu"},
        "ended": {"a": "all 2 epochs done", "b": "all 2 epochs done"},
    }
    assert rows_of(comparison, Group.EVAL) == {"loss": {"a": 0.5, "b": 0.5}}
    assert rows_of(comparison, Group.TRAIN) == {"loss": {"a": 0.75, "b": 0.75}}


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("min", (0.5, 0.25, 0.75), ("b",)),
        ("max", (0.5, 0.25, 0.75), ("c",)),
        ("max", (0.5, None, 0.5), ("a", "c")),
    ],
)
def test_the_best_value_is_marked_by_the_mode_of_the_runs(tmp_path, mode, values, best):
    for name, value in zip("abc", values, strict=True):
        write_run(
            tmp_path,
            name,
            settings=settings(mode=mode),
            best={"metric": "loss", "value": value, "epoch": 1},
            rows=[row(1, loss=value)],
        )

    comparison = compared(tmp_path, *"abc")

    assert comparison.goal == ("loss", mode)
    assert row_of(comparison, Group.RESULT, "best value").best == best
    assert row_of(comparison, Group.EVAL, "loss").best == best
    assert row_of(comparison, Group.RESULT, "steps").best == ()


def test_nothing_is_best_where_metrics_or_modes_differ(tmp_path):
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", settings=settings(mode="max"))

    comparison = compared(tmp_path, "a", "b")

    assert (comparison.goal, comparison.has_several_goals) == (None, True)
    assert [one.key for one in comparison.rows if one.best] == []


def test_one_run_alone_is_not_the_best(tmp_path):
    write_run(tmp_path, "a")
    write_experiment(tmp_path, "b")

    comparison = compared(tmp_path, "a", "b")

    assert (comparison.goal, comparison.has_several_goals) == (None, False)


def test_settings_are_those_of_the_run_and_of_the_file_where_there_is_none(tmp_path):
    path = write_run(tmp_path, "a", settings=settings(seed=7))
    (path / "experiment.toml").write_text("[train]\nseed = 100\n")
    write_experiment(tmp_path, "b", toml='[train]\nseed = 8\n[modules]\ninclude = ["x*"]\n')

    comparison = compared(tmp_path, "a", "b")

    assert row_of(comparison, Group.RESULT, "state").values == {
        "a": "finished",
        "b": "not trained",
    }
    assert row_of(comparison, Group.SETTINGS, "train.seed").values == {"a": 7, "b": 8}
    assert row_of(comparison, Group.SETTINGS, "modules.include").values == {"b": ["x*"]}


def test_a_list_from_the_file_equals_the_list_that_a_run_recorded(tmp_path):
    write_run(tmp_path, "a", settings={"modules": {"include": ["*"]}})
    write_experiment(tmp_path, "b")

    found = row_of(compared(tmp_path, "a", "b"), Group.SETTINGS, "modules.include")

    assert not found.is_changed


def test_a_setting_that_only_one_has_and_a_bool_beside_a_number_differ(tmp_path):
    write_run(tmp_path, "a", settings={"task": {"flag": True, "same": 1, "only": None}})
    write_run(tmp_path, "b", settings={"task": {"flag": 1, "same": 1.0}})

    comparison = compared(tmp_path, "a", "b")

    changed = {one.key: dict(one.values) for one in comparison.changed_rows()}
    assert changed == {"task.flag": {"a": True, "b": 1}, "task.only": {"a": None}}
    only = row_of(comparison, Group.SETTINGS, "task.only")
    assert (only.cell("a"), only.cell("b")) == ("null", None)


def test_modules_report_class_parameters_weights_and_origin(tmp_path):
    plugin = {"kind": "distribution", "distribution": "acme", "version": "1.2", "entry_point": "e"}
    (module,) = FACTS["modules"]
    frozen = {**module, "frozen": True, "weights": "a/best/net", "origin": plugin}
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", modules=[frozen])

    comparison = compared(tmp_path, "a", "b")

    assert rows_of(comparison, Group.MODULES) == {
        "net.class": {"a": "Linear", "b": "Linear"},
        "net.parameters": {"a": 1234, "b": 1234},
        "net.frozen": {"a": False, "b": True},
        "net.weights": {"a": "built", "b": "a/best/net"},
        "net.origin": {"a": "pymodules/modules/net.py", "b": "acme 1.2"},
    }
    assert row_of(comparison, Group.MODULES, "net.parameters").cell("a") == "1,234"


def test_versions_plugins_and_files_are_shown_where_they_differ(tmp_path):
    plugin = {"name": "acme:e", "kind": "distribution", "distribution": "acme", "version": "1"}
    write_run(tmp_path, "a", plugins=[plugin])
    write_run(
        tmp_path,
        "b",
        versions={"torch": "2.14.0", "python": "3.11"},
        git_commit="c" * 40,
        plugins=[{**plugin, "version": "2"}],
        files={"modules/net.py": "cd" * 32},
    )

    comparison = compared(tmp_path, "a", "b")

    assert rows_of(comparison, Group.VERSIONS) == {
        "torch": {"a": "2.13.0", "b": "2.14.0"},
        "python": {"b": "3.11"},
        "git commit": {"b": "c" * 40},
    }
    assert rows_of(comparison, Group.PLUGINS) == {"acme:e": {"a": "acme 1", "b": "acme 2"}}
    assert row_of(comparison, Group.FILES, "modules/net.py").cell("b") == "cdcdcdcdcdcd"
    write_run(tmp_path, "same")
    write_run(tmp_path, "again")
    equal = compared(tmp_path, "same", "again")
    assert equal.changed_rows() == []
    groups = {one.group for one in equal.rows}
    assert not groups & {Group.VERSIONS, Group.PLUGINS, Group.FILES}


def test_what_an_experiment_without_a_run_lacks_is_not_a_difference(tmp_path):
    write_run(tmp_path, "a")
    write_experiment(tmp_path, "b")

    comparison = compared(tmp_path, "a", "b")

    groups = {one.group for one in comparison.changed_rows()}
    assert not groups & {Group.MODULES, Group.VERSIONS, Group.PLUGINS, Group.FILES}


def test_metrics_of_one_run_alone_have_a_row(tmp_path):
    write_run(tmp_path, "a", rows=[row(1, loss=1.0)])
    write_run(tmp_path, "b", rows=[row(1, accuracy=0.5, loss=None)])

    comparison = compared(tmp_path, "a", "b")

    assert rows_of(comparison, Group.EVAL) == {
        "accuracy": {"b": 0.5},
        "loss": {"a": 1.0, "b": None},
    }
    loss = row_of(comparison, Group.EVAL, "loss")
    assert (loss.cell("a"), loss.cell("b")) == ("1", "not finite")


def test_keys_keep_the_order_they_have_in_each(tmp_path):
    write_run(tmp_path, "a", settings={"task": {"first": 1, "last": 1}})
    write_run(tmp_path, "b", settings={"task": {"first": 1, "middle": 1, "last": 1, "end": 1}})
    write_run(tmp_path, "c", settings={"task": {"other": 1}})

    keys = list(rows_of(compared(tmp_path, "a", "b", "c"), Group.SETTINGS))

    assert keys == ["task.first", "task.middle", "task.last", "task.end", "task.other"]


def test_keys_that_are_not_bare_are_quoted():
    flat = flatten({"plugins": {"settings": {"a.b": {"x": 1}, 'q"': {}}}, "empty": {}})

    assert flat == {'plugins.settings."a.b".x': 1}


def test_two_of_one_name_are_distinguished_by_their_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "one", "a")
    write_run(tmp_path / "two", "a")

    comparison = compared(None, "one/experiments/a", "two/experiments/a")

    assert comparison.labels == ["one/experiments/a", "two/experiments/a"]


def test_one_experiment_named_twice_is_refused(tmp_path):
    path = write_run(tmp_path, "a")

    with pytest.raises(PymodulesError) as caught:
        compared(tmp_path, "a", str(path))

    assert str(caught.value) == "experiment 'a' is named twice\n  fix: name each experiment once"
