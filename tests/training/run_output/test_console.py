"""What a person sees of a run."""

import io
import re

import pytest
from support import write_experiment
from table_cases import shown_width

from pymodules_core import Trainer
from pymodules_core.training.run_output.console import (
    ConsoleReporter,
    EpochSummary,
    PassStart,
    format_epoch,
)


def test_a_stream_that_is_not_a_terminal_gets_one_line_an_epoch(tmp_path):
    stream = io.StringIO()

    Trainer(write_experiment(tmp_path), reporter=ConsoleReporter(stream)).fit()

    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 0/2", "epoch 1/2", "epoch 2/2"]
    assert "train loss" in lines[1]
    assert "eval loss" in lines[1]
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_a_bar_that_goes_away(tmp_path):
    stream = io.StringIO()

    Trainer(write_experiment(tmp_path), reporter=ConsoleReporter(stream, show_bar=True)).fit()

    text = stream.getvalue()
    assert re.search(r"epoch .* 1/2 .*\n.*train .* 0/3 ", text)
    # The bar's line is erased, the epoch's line is not.
    assert "\x1b[1A\x1b[2Kepoch 2/2  train loss" in text.rstrip("\n").splitlines()[-1]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_bars_and_metrics_are_whole_on_a_terminal_of_any_width(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    reporter = ConsoleReporter(stream, show_bar=True)
    names = ["loss", "accuracy", "teacher_loss", "accuracy[top5]", "discriminator_accuracy"]
    reporter.pass_started(PassStart(phase="train", epoch=112, epochs=1200, batches=10_000))
    stream.seek(0)
    stream.truncate()

    reporter.pass_advanced(5_000, dict.fromkeys(names, 0.012345))

    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", stream.getvalue()).splitlines()
    reporter.pass_ended(10_000)
    assert [line for line in lines if shown_width(line) > width] == []
    assert re.fullmatch(r"epoch [━╸╺]+ 112/1200 +-:--:-- *", lines[0])
    assert re.fullmatch(r"train [━╸╺]+ 5000/10000 \d+ steps/s -:--:-- *", lines[1])
    assert " ".join(" ".join(lines[2:]).split()) == " ".join(f"{one} 0.01235" for one in names)


def test_a_line_is_printed_as_it_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    line = "plugin acme:key:value [red] of a line that is longer than the terminal"

    ConsoleReporter(stream, show_bar=True).line(line)

    assert stream.getvalue() == f"{line}\n"


def test_an_epochs_line_reports_what_is_worth_a_glance():
    summary = EpochSummary(
        epoch=7,
        epochs=12,
        train_metrics={"loss": 0.123456},
        eval_metrics={"loss": 0.2, "accuracy": 0.98765},
        is_best=True,
        seconds=3.21,
        skipped_steps=2,
    )

    assert format_epoch(summary) == (
        "epoch  7/12  train loss 0.1235  eval loss 0.2 accuracy 0.9877  3.2 s  "
        "2 steps skipped (loss not finite)  best"
    )
