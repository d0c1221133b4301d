"""What keeps a run from running bit for bit, as in another number of processes, is reported."""

import logging

import pytest
from support import write_experiment

from pymodules_core import Trainer
from pymodules_core.training import trainer
from pymodules_core.training.run_output.console import SilentPrinter

FEW = {"train.epochs": 1}


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run of three processes and other versions, as its record says."""
    path = write_experiment(tmp_path)

    def facts_of_then(session):
        facts = facts_of_now(session)
        return facts | {
            "processes": 3,
            "versions": facts["versions"] | {"torch": "2.10.0", "numpy": "1.0"},
        }

    facts_of_now = trainer.run_facts
    with monkeypatch.context() as then:
        then.setattr(trainer, "run_facts", facts_of_then)
        Trainer(path, overrides=FEW, reporter=SilentPrinter()).fit()
    return path


def test_what_keeps_a_run_from_continuing_bit_for_bit_is_reported_each_with_then_and_now(
    begun, caplog
):
    with caplog.at_level(logging.WARNING):
        result = Trainer(
            begun, overrides={"train.epochs": 2}, existing="resume", reporter=SilentPrinter()
        ).fit()

    told = [
        record.getMessage().removeprefix(
            "the run continues, but not bit for bit as if it had never stopped: "
        )
        for record in caplog.records
    ]

    assert result.epochs == 2
    assert [text.partition(" -> ")[0] for text in told] == [
        "processes 3",
        "torch 2.10.0",
        "numpy 1.0",
    ]
