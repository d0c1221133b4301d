"""What lies in ``data/`` of an experiment: no link leads elsewhere, and nobody waits for a pipe."""

import os
import shutil
from pathlib import Path

import pytest
from support import write_experiment

from pymodules_core import Experiment
from pymodules_core.cli.main import run
from pymodules_core.errors import InvalidNameError

PARTS = [
    "",
    "module_ckps",
    "module_ckps/best",
    "module_ckps/.store",
    "metrics.jsonl",
    "run.json",
    "sources",
]
OTHER_HOME = "put it there itself, or move the whole data home: --data-home / PYMODULES_DATA_HOME"


@pytest.fixture
def outside(tmp_path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_a_link_in_data_that_leads_out_of_the_data_home_is_refused(home, outside, part):
    link = write_experiment(home) / "data" / part
    link.parent.mkdir(parents=True, exist_ok=True)
    target = outside / "precious.txt" if "." in part else outside
    link.symlink_to(target)

    with pytest.raises(InvalidNameError) as caught:
        Experiment.open("tiny")

    assert str(caught.value) == (
        f"{link} leads out of the data home, to {target}\n  fix: {OTHER_HOME}"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "tiny"],
        ["train", "tiny", "--resume"],
        ["train", "tiny", "--reset", "--yes"],
        ["eval", "tiny"],
        ["ckpt", "ls", "tiny"],
        ["ckpt", "repair", "tiny"],
        ["plot", "tiny"],
    ],
    ids=" ".join,
)
def test_no_command_follows_such_a_link(home, outside, capsys, arguments):
    experiment = write_experiment(home)
    (experiment / "data").symlink_to(outside)

    assert run(arguments) == 2

    assert capsys.readouterr().err == (
        f"error: data/experiments/tiny/data leads out of the data home, to {outside}\n"
        f"  fix: {OTHER_HOME}\n"
    )
    assert [file.read_text() for file in outside.iterdir()] == ["mine"]


def test_a_link_within_the_data_home_is_followed(home):
    experiment = write_experiment(home)
    (home / "disk").mkdir()
    (experiment / "data").symlink_to("../../disk")

    assert Experiment.open("tiny").data_dir.is_dir()


def test_an_experiment_outside_the_data_home_keeps_its_data_in_its_folder(home, outside):
    experiment = write_experiment(home)
    shutil.move(experiment, outside / "tiny")
    (outside / "tiny" / "data").mkdir()
    (outside / "tiny" / "data" / "run.json").symlink_to(outside / "precious.txt")

    with pytest.raises(InvalidNameError, match="leads out of"):
        Experiment.open(outside / "tiny")


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json"])
def test_a_pipe_is_refused_and_not_waited_for(home, name):
    pipe = write_experiment(home) / "data" / name
    pipe.parent.mkdir()
    os.mkfifo(pipe)

    with pytest.raises(InvalidNameError) as caught:
        Experiment.open("tiny")

    assert str(caught.value) == (
        f"data/experiments/tiny/data/{name} is a device, pipe or socket, expected a file or "
        "folder\n  fix: remove it"
    )


def test_the_status_of_all_waits_for_no_pipe(home, capsys):
    pipe = write_experiment(home) / "data" / "run.json"
    pipe.parent.mkdir()
    os.mkfifo(pipe)

    assert run(["status"]) == 0

    assert "tiny        unreadable" in capsys.readouterr().out
