"""Finding experiments."""

import re
from pathlib import Path

import pytest
from support import write_experiment

from pymodules_core import Experiment
from pymodules_core.errors import ExperimentNotFoundError, InvalidNameError, SettingsError
from pymodules_core.experiment import list_experiments


def test_an_unknown_name_lists_what_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path / "data", "digits_gan")
    write_experiment(tmp_path / "data", "other")

    with pytest.raises(ExperimentNotFoundError) as caught:
        Experiment.open("digits_gna")

    assert str(caught.value) == (
        "no experiment 'digits_gna' in data; there are: digits_gan, other\n"
        "  closest match: digits_gan\n"
        "  fix: write 'digits_gan', or --data-home / PYMODULES_DATA_HOME for another home"
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/such", "no folder no/such\n  fix: give a name or an existing folder"),
        (
            "./data",
            "data is not an experiment: it has neither experiment.toml nor pymodules/\n"
            "  fix: pymodules new NAME writes one",
        ),
    ],
)
def test_a_path_that_is_not_an_experiment_is_reported(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()

    with pytest.raises(ExperimentNotFoundError) as caught:
        Experiment.open(path)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "notes",
            "data/experiments/notes is not a folder\n  fix: give a name or an existing folder",
        ),
        (
            "empty",
            "data/experiments/empty is not an experiment: it has neither experiment.toml nor "
            "pymodules/\n  fix: pymodules new NAME writes one",
        ),
        (
            "data/experiments/tiny/experiment.toml",
            "data/experiments/tiny/experiment.toml is not a folder\n"
            "  fix: give a name or an existing folder",
        ),
        ("tiny/", "no folder tiny\n  closest match: tiny\n  fix: write 'tiny'"),
        (
            "data/experiments/tinny",
            "no folder data/experiments/tinny\n  closest match: tiny\n  fix: write 'tiny'",
        ),
        (
            "~nobody-of-that-name/x",
            "no folder ~nobody-of-that-name/x\n  fix: give a name or an existing folder",
        ),
    ],
)
def test_what_is_there_and_no_experiment_is_reported(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    folder = write_experiment(tmp_path / "data", "tiny").parent
    (folder / "notes").write_text("no folder")
    (folder / "empty").mkdir()

    with pytest.raises(ExperimentNotFoundError) as caught:
        Experiment.open(name)

    assert str(caught.value) == message


def test_a_link_out_of_the_data_home_is_not_a_name_but_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outside = write_experiment(tmp_path / "elsewhere", "far")
    link = write_experiment(tmp_path / "data", "tiny").parent / "far"
    link.symlink_to(outside)

    with pytest.raises(InvalidNameError) as caught:
        Experiment.open("far")

    assert str(caught.value) == (
        f"data/experiments/far leads out of the data home, to {outside}\n"
        "  fix: name it by its path: data/experiments/far"
    )
    assert Experiment.open("data/experiments/far").path == link


@pytest.mark.parametrize("given", ["argument", "variable"])
def test_a_data_home_that_is_a_file_is_refused(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    Path("home").write_text("no folder")
    if given == "variable":
        monkeypatch.setenv("PYMODULES_DATA_HOME", "home")

    with pytest.raises(SettingsError) as caught:
        Experiment.open("tiny", data_home=Path("home") if given == "argument" else None)

    assert str(caught.value) == (
        "data home home is not a folder\n  fix: name a folder: --data-home / PYMODULES_DATA_HOME"
    )


@pytest.mark.parametrize("name", ["-x", "..x/", "a\0b", "x."])
def test_a_bad_name_opens_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)

    with pytest.raises((InvalidNameError, ExperimentNotFoundError)):
        Experiment.open(name)


def test_the_data_home_of_a_path_is_the_folder_around_its_experiments(tmp_path):
    path = write_experiment(tmp_path / "home", "tiny")

    experiment = Experiment.open(path)

    assert experiment.data_home == tmp_path / "home"
    assert experiment.name == "tiny"


def test_the_working_directory_may_be_the_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(write_experiment(tmp_path / "home", "tiny"))

    experiment = Experiment.open(".")

    assert (experiment.name, experiment.data_home) == ("tiny", tmp_path / "home")


def test_only_folders_of_experiments_are_listed(tmp_path):
    write_experiment(tmp_path, "b")
    write_experiment(tmp_path, "a")
    (tmp_path / "experiments" / "notes").mkdir()

    assert [path.name for path in list_experiments(tmp_path)] == ["a", "b"]
    assert list_experiments(tmp_path / "nowhere") == []


@pytest.mark.parametrize("given", ["tiny", "data/experiments/tiny"])
def test_an_experiment_stays_where_it_is_when_the_working_directory_changes(
    tmp_path, monkeypatch, given
):
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path / "data", "tiny")

    experiment = Experiment.open(given)

    assert experiment.path == path
    assert experiment.data_home == tmp_path / "data"
    assert experiment.data_dir == path / "data"


@pytest.mark.parametrize(
    "late", [{"overrides": {"train.epochs": 7}}, {"data_home": Path("elsewhere")}]
)
def test_an_open_experiment_takes_no_more_overrides(tmp_path, late):
    experiment = Experiment.open(write_experiment(tmp_path / "home", "tiny"))

    with pytest.raises(SettingsError) as caught:
        Experiment.open(experiment, **late)

    assert Experiment.open(experiment) is experiment
    assert str(caught.value) == (
        "experiment 'tiny' is open already: data_home and overrides come too late\n"
        "  fix: give them to Experiment.open"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".".join("a" * 5000) + " = 1", ":2: a key of more than 100 parts"),
        ("x = {" + ".".join("a" * 5000) + " = 1}", ":2: a key of more than 100 parts"),
        ("[" + ".".join("a" * 5000) + "]", ":2: a key of more than 100 parts"),
        ("x = [" + "0," * 600_000 + "]", ": has more than 1,048,576 bytes"),
    ],
    ids=["dotted key", "inline table", "header", "large"],
)
def test_a_file_that_would_take_gigabytes_is_refused(home, text, message):
    path = write_experiment(home, toml=f"[task]\n{text}\n")

    with pytest.raises(SettingsError, match=re.escape(f"experiment.toml{message}")):
        Experiment.open(path)


def test_an_override_of_tables_without_end_is_refused(home):
    write_experiment(home)

    with pytest.raises(SettingsError, match="override of 2000 tables in tables"):
        Experiment.open("tiny", data_home=home, overrides={"task." + ".".join("a" * 2000): 1})
