"""A run that was interrupted is, to the bit, the run that never was."""

import pytest
from run_cases import KilledRuns, copy_example, outcome_of, write_everything

from pymodules_core import Trainer
from pymodules_core.errors import StepError
from pymodules_core.training.run_output.console import SilentPrinter


def fit(path, **overrides):
    return Trainer(path, existing="resume", overrides=overrides, reporter=SilentPrinter()).fit()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the experiment with everything comes to where nothing stops it."""
    path = write_everything(tmp_path_factory.mktemp("home"), "whole")
    fit(path)
    return outcome_of(path)


# Thirteen steps an epoch, a commit every four: between commits, at one, in an open accumulation
# window, at the last step of an epoch, within evaluations, in the first and in the last epoch.
@pytest.mark.parametrize(
    "moment",
    [
        *("train 1", "train 4", "train 5", "train 12", "train 13", "train 14", "train 23"),
        *("train 39", "train 50", "train 52", "eval 0", "eval 1", "eval 3", "eval 4"),
    ],
)
def test_a_run_that_failed_continues_as_if_nothing_had_been(tmp_path, monkeypatch, whole, moment):
    path = write_everything(tmp_path, "broken")
    monkeypatch.setenv("DIE_AT", moment)
    with pytest.raises(StepError):
        fit(path)
    monkeypatch.delenv("DIE_AT")

    fit(path)

    assert outcome_of(path) == whole


@pytest.mark.parametrize("moment", ["train 6", "train 23", "train 50"])
def test_a_stream_that_runs_from_step_to_step_continues(tmp_path, monkeypatch, moment):
    whole, path = (write_everything(tmp_path, n, is_plain=True) for n in ("whole", "broken"))
    fit(whole)
    monkeypatch.setenv("DIE_AT", moment)
    with pytest.raises(StepError):
        fit(path)
    monkeypatch.delenv("DIE_AT")

    fit(path)

    assert outcome_of(path) == outcome_of(whole)


def test_a_run_that_fails_again_and_again_comes_to_the_same(tmp_path, monkeypatch, whole):
    path = write_everything(tmp_path, "broken")
    for moment in ("train 2", "train 9", "train 10", "eval 1", "train 30", "train 41", "eval 4"):
        monkeypatch.setenv("DIE_AT", moment)
        with pytest.raises(StepError):
            fit(path)
    monkeypatch.delenv("DIE_AT")

    result = fit(path)

    assert (result.epochs, result.steps) == (4, 52)
    assert outcome_of(path) == whole


def test_the_number_of_workers_changes_nothing(tmp_path, whole):
    path = write_everything(tmp_path, "workers", workers=2)

    fit(path)

    assert outcome_of(path) == whole


def test_a_run_may_be_continued_by_other_workers_beyond_its_epochs(tmp_path, whole):
    path = write_everything(tmp_path, "short")
    task = path / "pymodules" / "task.py"
    fit(path, **{"train.epochs": 2})
    assert fit(path, **{"train.epochs": 2}).epochs == 2  # nothing is left to do
    task.write_text(task.read_text().replace("WORKERS = 0", "WORKERS = 2"))
    overrides = {"train.epochs": 4}

    Trainer(
        path,
        existing="resume",
        accept_changes=True,
        overrides=overrides,
        reporter=SilentPrinter(),
    ).fit()

    assert outcome_of(path) == whole


CASES = {
    "everything": (write_everything, {"train__epochs": 12}),
    "everything_workers": (
        lambda home, name: write_everything(home, name, workers=2),
        {"train__epochs": 12},
    ),
    "digits_classifier": (
        lambda home, name: copy_example(home, "digits_classifier", name),
        {"checkpoints__every_n_steps": 7},
    ),
    "digits_distill": (
        lambda home, name: copy_example(home, "digits_distill", name),
        {"checkpoints__every_n_steps": 7},
    ),
    "digits_gan": (
        lambda home, name: copy_example(home, "digits_gan", name),
        {"checkpoints__every_n_steps": 50, "train__epochs": 25},
    ),
}


@pytest.mark.parametrize(
    ("case", "number"),
    [
        pytest.param("everything_workers", 0),
        pytest.param("everything", 0, marks=pytest.mark.long),
        *(
            pytest.param(case, number, marks=pytest.mark.long)
            for case in CASES
            for number in range(1, 5)
        ),
    ],
)
def test_a_run_killed_at_random_moments_comes_to_the_same(tmp_path, case, number):
    write, overrides = CASES[case]
    runs = KilledRuns()
    if case == "digits_distill":
        runs.finish(copy_example(tmp_path, "digits_classifier"), train__epochs=2)
    whole, killed = write(tmp_path, "whole"), write(tmp_path, f"killed_{number}")

    kills = runs.kill_and_finish(killed, whole, kills=6, **overrides)

    # How many meet the run hangs on what else the machine does meanwhile.
    assert kills
    assert outcome_of(killed) == outcome_of(whole)
