"""What a person sees of a run."""

import io
import re

from support import write_experiment

from pymodules_core import Trainer
from pymodules_core.training.reporting import ConsoleReporter, EpochSummary, format_epoch


def test_a_stream_that_is_no_terminal_gets_one_line_an_epoch(tmp_path):
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


def test_an_epochs_line_tells_what_is_worth_a_glance():
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
