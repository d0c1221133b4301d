"""What is read back of a run: values, states, and damage that costs what is damaged."""

import os
import platform

import pytest
from support import write_experiment
from view_cases import FACTS, ROWS, row, settings, write_run

from pymodules_core import Trainer
from pymodules_core.reports.history import MetricsRow, Resumption, phases_of, read_history
from pymodules_core.run_files import RunBest
from pymodules_core.training.run_output.console import SilentPrinter


def test_a_real_run_is_read_whole(tmp_path):
    path = write_experiment(tmp_path)
    result = Trainer(path, reporter=SilentPrinter()).fit()

    history = read_history(path)

    assert history.state == "finished"
    assert [(one.epoch, one.step, one.phase) for one in history.rows] == [
        (0, 0, "eval"),
        (1, 3, "train"),
        (1, 3, "eval"),
        (2, 6, "train"),
        (2, 6, "eval"),
    ]
    assert history.rows[1].learning_rates == {"main": 0.1}
    assert history.last_row("eval").metrics == {"loss": pytest.approx(result.metrics["loss"])}
    assert history.best == RunBest(
        metric="loss", value=pytest.approx(result.best_value), epoch=result.best_epoch
    )
    assert history.best_epochs()[-1] == result.best_epoch
    assert history.setting("batch_size") == 16
    assert (history.notes, history.resumptions) == ([], [])


def test_an_experiment_without_a_run_has_no_history(tmp_path):
    assert read_history(write_experiment(tmp_path)) is None


def test_a_last_line_that_is_cut_off_is_left_out_and_reported(tmp_path):
    path = write_run(tmp_path, tail='{"epoch": 3, "st')

    history = read_history(path)

    assert len(history.rows) == len(ROWS)
    assert history.notes == [
        "The last line of metrics.jsonl is cut off and left out: the run is writing it, or was "
        "killed meanwhile."
    ]


def test_a_last_line_that_lacks_nothing_but_its_end_counts(tmp_path):
    path = write_run(
        tmp_path, tail='{"epoch": 3, "step": 9, "phase": "eval", "metrics": {"loss": 0.25}}'
    )

    history = read_history(path)

    assert history.rows[-1] == MetricsRow(epoch=3, step=9, phase="eval", metrics={"loss": 0.25})
    assert history.notes == []


def test_damaged_lines_in_the_middle_are_counted_with_their_numbers(tmp_path):
    path = write_run(
        tmp_path,
        rows=[],
        tail='{"epoch": 1, "step": 3, "phase": "eval", "metrics": {"loss": 1}}\n'
        "not JSON\n"
        '{"epoch": true, "step": 3, "phase": "eval", "metrics": {}}\n'
        '{"epoch": 2, "step": -6, "phase": "eval", "metrics": {}}\n'
        '{"epoch": 2, "step": 6, "phase": 3, "metrics": {}}\n'
        '{"epoch": 2, "step": 6, "phase": "eval", "metrics": [1]}\n'
        f"{'[' * 100_000}\n"
        "\n"
        '{"epoch": 2, "step": 6, "phase": "eval", "metrics": {"loss": 2}}\n',
    )

    history = read_history(path)

    assert [one.metrics["loss"] for one in history.rows] == [1.0, 2.0]
    assert history.notes == ["metrics.jsonl has 6 damaged lines, left out: 2, 3, 4, 5, 6, 7."]


def test_bytes_that_are_no_text_damage_one_line(tmp_path):
    path = write_run(tmp_path)
    file = path / "data" / "metrics.jsonl"
    file.write_bytes(b"\xff\xfe\n" + file.read_bytes())

    history = read_history(path)

    assert len(history.rows) == len(ROWS)
    assert history.notes == ["metrics.jsonl has 1 damaged line, left out: 1."]


@pytest.mark.parametrize("text", ["null", "NaN", "Infinity", '"x"', "true", "[1]", "1" + "0" * 400])
def test_a_metric_that_is_not_a_finite_number_is_a_gap(tmp_path, text):
    line = f'{{"epoch": 1, "step": 3, "phase": "eval", "metrics": {{"loss": {text}}}}}\n'
    path = write_run(tmp_path, rows=[], tail=line)

    history = read_history(path)

    assert history.rows[0].metrics == {"loss": None}


@pytest.mark.parametrize("text", ["", "[", "[1]", "3", "[" * 100_000])
def test_a_damaged_run_file_leaves_the_metrics(tmp_path, text):
    path = write_run(tmp_path, run_text=text)

    history = read_history(path)

    assert (history.state, history.facts, len(history.rows)) == ("unreadable", {}, len(ROWS))
    assert (history.best, history.best_epochs(), history.resumptions) == (None, [], [])
    assert history.notes == ["run.json cannot be read; only metrics and checkpoints are shown."]


def test_values_of_a_wrong_type_in_the_run_file_are_as_if_not_there(tmp_path):
    path = write_run(tmp_path, best=[1], settings=3, resumed={"epoch": 1}, modules="net")

    history = read_history(path)

    assert (history.best, history.setting("mode"), history.resumptions) == (None, None, [])


def test_what_a_run_repeated_after_it_continued_counts_once(tmp_path):
    path = write_run(tmp_path, rows=[*ROWS, row(2, loss=0.25), row(1, "train", loss=9.0)])

    history = read_history(path)

    assert [(r.epoch, r.phase, r.metrics["loss"]) for r in history.rows] == [
        (0, "eval", 2.0),
        (1, "train", 9.0),
        (1, "eval", 1.0),
        (2, "train", 0.75),
        (2, "eval", 0.25),
    ]


def test_a_run_reports_where_it_was_resumed(tmp_path):
    path = write_run(
        tmp_path,
        resumed=[{"time": "t", "epoch": 1, "step": 3}, {"epoch": 2, "step": 5}, {"epoch": "x"}],
    )

    history = read_history(path)

    assert history.resumptions == [
        Resumption(time="t", epoch=1, step=3),
        Resumption(time="", epoch=2, step=5),
    ]
    assert [history.epoch_at(step) for step in (0, 3, 6)] == [0, 1, 2]
    assert history.epoch_at(5) == pytest.approx(5 / 3)
    assert history.epoch_at(7) is None


@pytest.mark.parametrize(
    ("mode", "min_delta", "values", "epochs"),
    [
        ("min", 0.0, [3.0, 2.0, 2.0, 1.0], [0, 1, 3]),
        ("max", 0.0, [3.0, 2.0, 4.0, 4.0], [0, 2]),
        ("min", 1.0, [3.0, 2.5, 1.9, 1.0], [0, 2]),
        ("min", 0.0, [None, None, 5.0, 6.0], [0, 2]),
        ("min", 0.0, [1.0, None, 0.5, 2.0], [0, 2]),
    ],
)
def test_best_moved_at_the_epochs_where_the_run_moved_it(tmp_path, mode, min_delta, values, epochs):
    path = write_run(
        tmp_path,
        rows=[row(epoch, loss=value) for epoch, value in enumerate(values)],
        settings=settings(mode=mode, min_delta=min_delta),
    )

    assert read_history(path).best_epochs() == epochs


def test_a_running_state_is_believed_while_its_process_is_there(tmp_path):
    here = {"state": "running", "host": platform.node()}
    alive = write_run(tmp_path, "alive", **here, process=os.getpid())
    dead = write_run(tmp_path, "dead", **here, process=2**31 - 1)
    elsewhere = write_run(tmp_path, "elsewhere", state="running", host="not-this-machine")

    states = [read_history(path).state for path in (alive, dead, elsewhere)]

    assert states == ["running", "killed", "running"]


def test_phases_are_eval_and_train_first(tmp_path):
    path = write_run(tmp_path, rows=[row(1, "test", a=1), row(1, "train", a=1), row(1, a=1)])

    assert phases_of([read_history(path)]) == ["eval", "train", "test"]


def test_reading_changes_nothing(tmp_path):
    path = write_run(tmp_path, tail="{")
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}

    read_history(path)

    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    assert FACTS["state"] == "finished"
