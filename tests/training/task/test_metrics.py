"""Averages of metrics over a pass."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.errors import TaskError
from pymodules_core.training.run_output.console import SilentPrinter
from pymodules_core.training.task.metrics import MetricAverages

STATEFUL = """
class LargestError:
    def __init__(self):
        self.reset()

    def update(self, value):
        self.value = max(self.value, float(value))

    def compute(self):
        return torch.tensor(self.value)

    def reset(self):
        self.value = 0.0


largest = LargestError()
"""


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(min_value=1, max_value=1000)), min_size=1)
)
def test_the_mean_is_weighted_by_samples(batches):
    averages = MetricAverages()
    for value, size in batches:
        averages.add("m", value, size)

    total = sum(size for _, size in batches)
    expected = math.fsum(value * size for value, size in batches) / total
    assert averages.means()["m"] == pytest.approx(expected, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    "value", [2, 2.0, True + 1, torch.tensor(2.0), torch.tensor([[2]]), torch.tensor(2.0).half()]
)
def test_numbers_and_tensors_of_one_element_are_metrics(value):
    averages = MetricAverages()

    averages.add("m", value, 3)

    assert averages.means() == {"m": 2.0}


def test_a_hidden_nan_shows():
    averages = MetricAverages()
    for value in (1.0, math.nan, 1.0):
        averages.add("m", value, 1)

    assert math.isnan(averages.means()["m"])


def test_metrics_that_come_in_some_batches_only_average_over_those():
    averages = MetricAverages()
    averages.add("always", 1.0, 10)
    averages.add("always", 3.0, 10)
    averages.add("once", 5.0, 10)

    assert averages.means() == {"always": 2.0, "once": 5.0}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.zeros(3),
            "metric 'm' has shape [3], expected one number\n  fix: average it: value.mean()",
        ),
        (
            "high",
            "metric 'm' is str, expected a number, a one-element tensor or an object with "
            "update, compute and reset\n"
            "  fix: return a mean: value.mean()",
        ),
        (
            None,
            "metric 'm' is NoneType, expected a number, a one-element tensor or an object with "
            "update, compute and reset\n"
            "  fix: return a mean: value.mean()",
        ),
    ],
)
def test_what_is_not_a_number_is_refused(value, message):
    with pytest.raises(TaskError) as caught:
        MetricAverages().add("m", value, 1)

    assert str(caught.value) == message


def test_an_object_that_accumulates_is_computed_once_a_loop_and_reset(tmp_path):
    task = (
        TINY_TASK.replace("def train_data", STATEFUL + "\n\ndef train_data", 1)
        .replace(
            'return {"loss": mse_loss(module_pool.net(inputs), targets)}',
            "largest.update(run.epoch * 10 + len(inputs))\n"
            '    return {"loss": 0.0, "largest": largest}',
        )
        .replace("def eval_step(module_pool, batch)", "def eval_step(batch, run)")
    )
    path = write_experiment(tmp_path, task=task)
    seen = []

    class ProgressPrinter(SilentPrinter):
        def epoch_ended(self, summary):
            seen.append(summary.eval_metrics["largest"])

    Trainer(path, reporter=ProgressPrinter()).fit()

    # Were it not reset, or read too early, the values would not follow the epochs.
    assert seen == [16.0, 26.0, 36.0]


def test_run_log_averages_like_returned_metrics(tmp_path):
    task = TINY_TASK.replace(
        'return {"loss": mse_loss(module_pool.net(inputs), targets)}',
        'run.log("length", len(inputs))\n    return 0.5',
    ).replace("def eval_step(module_pool, batch)", "def eval_step(batch, run)")
    path = write_experiment(tmp_path, task=task)

    metrics = Trainer(path, reporter=SilentPrinter()).fit().metrics

    assert metrics == {"loss": 0.5, "length": pytest.approx((256 + 256 + 64) / 40)}


def test_run_batch_size_overrides_what_the_batch_shows(tmp_path):
    task = TINY_TASK.replace(
        'return {"loss": mse_loss(module_pool.net(inputs), targets)}',
        'run.batch_size = 1\n    return {"loss": 0.0, "length": len(inputs)}',
    ).replace("def eval_step(module_pool, batch)", "def eval_step(batch, run)")
    path = write_experiment(tmp_path, task=task)

    metrics = Trainer(path, reporter=SilentPrinter()).fit().metrics

    assert metrics["length"] == pytest.approx((16 + 16 + 8) / 3)
