"""Settings of any shape: said back as they were given, or refused with the key that is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from fuzzing.cases import check_message
from fuzzing.texts import assert_says
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pymodules_core.errors import PymodulesError, SettingsError
from pymodules_core.settings import ExperimentSettings, structure, structure_module_settings
from pymodules_core.settings.structure import unstructure

# Of each test; `make test-long` tries this many more.
QUICK, LONG = 100, 10_000

_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["best", "epoch_1", "epoch_0", "ddp", "fsdp", "max", "eval", "../x", "net"]),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def tables(cls: Any) -> st.SearchStrategy[Any]:
    """Return tables whose keys are mostly right, with values that mostly are not."""
    names = [field.name for field in cls.__attrs_attrs__]
    keys = st.one_of(st.sampled_from(names), st.sampled_from(names), st.text(max_size=10))
    return st.dictionaries(keys, _VALUES, max_size=4)


def nested(cls: Any) -> st.SearchStrategy[Any]:
    """Return tables in a table: those of ``experiment.toml``."""
    known = {
        field.name: tables(type(field.default.factory()))
        for field in cls.__attrs_attrs__
        if hasattr(field.default.factory(), "__attrs_attrs__")
    }
    return st.fixed_dictionaries({}, optional=known)


def check_settings(raw: Any) -> None:
    try:
        found = structure_module_settings(raw)
    except PymodulesError as error:
        check_refusal(error, "settings")
    else:
        assert_says(unstructure(found), raw)


def check_experiment(raw: Any) -> None:
    try:
        found = structure(raw, ExperimentSettings, root="")
    except PymodulesError as error:
        check_refusal(error, "")
    else:
        assert_says(unstructure(found), raw)


def check_refusal(error: PymodulesError, root: str) -> None:
    """A refusal names the key, and says what to do unless any other value would do."""
    check_message(error)
    assert error.key is not None
    assert error.key.startswith(root)
    assert isinstance(error, SettingsError) or error.fix


_MODULE_TABLES = tables(type(structure_module_settings({}))) | _VALUES
_EXPERIMENT_TABLES = nested(ExperimentSettings) | tables(ExperimentSettings)
_CHECKS = [
    pytest.param(_MODULE_TABLES, check_settings, id="settings"),
    pytest.param(_EXPERIMENT_TABLES, check_experiment, id="experiment.toml"),
]


def run(strategy: Any, check: Callable[[Any], None], examples: int) -> None:
    """Try as many examples."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    settings(max_examples=examples, deadline=None, suppress_health_check=quiet, database=None)(
        given(strategy)(check)
    )()


@pytest.mark.parametrize(("strategy", "check"), _CHECKS)
def test_any_settings_are_said_back_or_refused(strategy, check):
    run(strategy, check, QUICK)


@pytest.mark.long
@pytest.mark.parametrize(("strategy", "check"), _CHECKS)
def test_many_settings_are_said_back_or_refused(strategy, check):
    run(strategy, check, LONG)
