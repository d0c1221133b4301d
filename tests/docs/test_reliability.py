"""The catalogue of faults: no line without a test, and no test that is not there."""

import ast
import functools

import pytest
from docs.reliability import REPOSITORY, count_cases, faults, tried

LAST_NUMBER = 69


@functools.cache
def functions_in(file: str) -> frozenset[str]:
    tree = ast.parse((REPOSITORY / file).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_fault_has_a_test_that_is_there():
    missing = [
        (fault.what, name)
        for fault in faults()
        for file, name in fault.tests or [("conftest.py", "no test")]
        if not name.startswith("test_") or name not in functions_in(file)
    ]

    assert missing == []


def test_every_fault_has_an_outcome():
    assert all(fault.what and fault.tried and fault.outcome for fault in faults())


def test_no_number_of_the_catalogue_is_left_out():
    assert {fault.number for fault in faults()} >= {str(n) for n in range(1, LAST_NUMBER + 1)}


@pytest.mark.long
def test_the_counts_are_those_of_the_tests():
    counts = count_cases()

    assert [fault for fault in faults() if fault.tried != tried(fault, counts)] == []
