"""Of processes that fail together one says why: ``failing_in_ranks.py``, in three of them."""

import json
from pathlib import Path

import pytest
from rank_cases import launch

from pymodules_core.errors import ProcessLostError, StepError
from pymodules_core.processes.failures import Failure

SCRIPT = Path(__file__).with_name("failing_in_ranks.py")
GONE = (
    "another process of the run is gone: it was killed, or its machine failed\n"
    "  fix: the launcher says which; --resume resumes from the latest commit"
)


def told_by_rank(how: str, which: int, *, shares_store: bool = True) -> dict[int, list]:
    result = launch(
        3,
        str(SCRIPT),
        how,
        str(which),
        TORCH_DISABLE_SHARE_RDZV_TCP_STORE="0" if shares_store else "1",
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {rank: rest for rank, *rest in lines}


@pytest.mark.parametrize(("which", "shares_store"), [(0, True), (1, True), (0, False)])
def test_the_one_that_fails_reports_its_own_error_and_the_others_whose_it_is(which, shares_store):
    told = told_by_rank("raise", which, shares_store=shares_store)

    # Without the launcher's store it is gone with the first process, and what that said.
    reason = "ouch" if shares_store or which else "it is gone"
    assert told == {
        which: ["StepError", "ouch", 1],
        **{
            rank: [
                "RankFailedError",
                f"process {which} failed: {reason}\n  fix: see what process {which} says",
                1,
            ]
            for rank in range(3)
            if rank != which
        },
    }


@pytest.mark.parametrize(("how", "which"), [("kill", 0), ("leave", 1)])
def test_of_those_that_are_left_one_reports_that_another_is_gone(how, which):
    told = told_by_rank(how, which)

    assert sorted(told) == [rank for rank in range(3) if rank != which]
    assert sorted(name for name, *_ in told.values()) == ["ProcessLostError", "RankFailedError"]
    assert [text for name, text, _ in told.values() if name == "ProcessLostError"] == [GONE]


def test_where_the_store_is_gone_too_nobody_that_is_left_reports():
    told = told_by_rank("kill", 0, shares_store=False)

    assert [told[rank][0] for rank in (1, 2)] == ["RankFailedError"] * 2


def test_a_failure_keeps_what_was_wrong_and_the_exit_code():
    error = StepError("ouch", fix="do not")
    error.exit_code = 2

    failure = Failure.of(3, error)
    told = failure.as_error()

    assert failure == Failure(rank=3, text="ouch", exit_code=2)
    assert told.what == "process 3 failed: ouch"
    assert told.found == 3
    assert told.exit_code == 2


def test_a_failure_of_any_class_is_reported_by_its_name():
    assert Failure.of(0, ValueError("ouch")).text == "ValueError: ouch"
    assert Failure.of(0, KeyboardInterrupt()).text == "KeyboardInterrupt"


def test_a_process_that_is_lost_is_an_error_of_the_run_and_of_the_connection():
    assert ProcessLostError.exit_code == 1
    assert issubclass(ProcessLostError, ConnectionError)
