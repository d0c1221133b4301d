"""The exception tree, and how an error prints."""

import inspect
import pickle

import pytest

from pymodules_core import errors
from pymodules_core.errors import (
    PymodulesError,
    SettingsError,
    closest_match,
    list_words,
    missing_package_fix,
)

CLASSES = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_ours_and_stands_in_the_drawn_tree(error):
    assert issubclass(error, PymodulesError)
    assert error.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_keeps_its_facts_through_pickle(error):
    original = error("what", file="f.py", line=3, key="a.b", found=1, closest="c", fix="do it")

    again = pickle.loads(pickle.dumps(original))  # noqa: S301  our own bytes

    assert str(again) == str(original) == ("f.py:3: what\n  closest match: c\n  fix: do it")
    assert (again.key, again.found) == ("a.b", 1)


def test_only_what_is_known_is_printed():
    assert str(SettingsError("what")) == "what"
    assert str(SettingsError("what", file="f.py")) == "f.py: what"


def test_exit_codes_distinguish_a_failed_run_from_an_invalid_experiment():
    assert {error.__name__ for error in CLASSES if error.exit_code == 1} == {
        "TrainingError",
        "NonFiniteLossError",
        "StepError",
        "ProcessLostError",
        "RankFailedError",
    }


@pytest.mark.parametrize(
    ("name", "match"), [("encodr", "encoder"), ("ENCODER", "encoder"), ("xyz", None), ("", None)]
)
def test_the_closest_match_is_near_or_none(name, match):
    assert closest_match(name, ["encoder", "head"]) == match


def test_long_lists_are_cut_with_a_count():
    assert list_words([]) == "none"
    assert list_words(range(22)).endswith("18, 19, … (2 more)")


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (ModuleNotFoundError(name="acme_nets.blocks"), "pip install acme_nets"),
        (ModuleNotFoundError(name="cv2"), "pip install opencv-python"),
        (ModuleNotFoundError(name="skimage.io"), "pip install scikit-image"),
        (ModuleNotFoundError(name="torch.no_such"), None),
        (ModuleNotFoundError("no name"), None),
        (ImportError(name="acme_nets"), None),
    ],
)
def test_what_an_import_missed_is_installed_by_its_distributions_name(error, fix):
    assert missing_package_fix(error) == fix


def test_what_a_terminal_would_act_on_is_spelt_out():
    error = SettingsError("train.\x1b]0;x\x07: unknown key\nnaïve \u202e", fix="tab\there")

    assert str(error) == ("train.\\x1b]0;x\\x07: unknown key\nnaïve \\u202e\n  fix: tab\\there")


def test_a_line_that_a_file_made_long_is_cut():
    assert str(SettingsError("x" * 5000)) == "x" * 1000 + "…"
