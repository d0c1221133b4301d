"""What a launcher says in the environment."""

import pytest

from pymodules_core.errors import ProcessesError
from pymodules_core.processes.environment import RankInfo, is_elastic, is_own, rank_info

TORCHRUN = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_RUN_ID": "7",
}


def test_a_process_that_nobody_launched_is_alone_and_first():
    place = rank_info({"RANK": "1"})

    assert place == RankInfo()
    assert place.is_first
    assert place.size == 1


def test_what_torchrun_says_is_read():
    place = rank_info(TORCHRUN)

    assert place == RankInfo(rank=3, local_rank=1, size=4, local_size=2, restarts=2)
    assert not place.is_first


def test_a_launcher_that_says_nothing_of_machines_has_one():
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

    place = rank_info({name: TORCHRUN[name] for name in names})

    assert place == RankInfo(rank=3, local_rank=3, size=4, local_size=4, restarts=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": "4"}, "RANK is 4 and WORLD_SIZE 4, expected a rank from 0 to 3"),
        ({"RANK": "-1"}, "RANK is -1 and WORLD_SIZE 4, expected a rank from 0 to 3"),
        ({"RANK": "one"}, "RANK is 'one', expected a whole number"),
        (
            {"MASTER_PORT": None},
            "WORLD_SIZE is 4, and MASTER_PORT not set: the processes cannot find each other",
        ),
    ],
)
def test_an_environment_that_cannot_be_is_refused(changes, message):
    environment = {k: v for k, v in (TORCHRUN | changes).items() if v is not None}

    with pytest.raises(ProcessesError) as caught:
        rank_info(environment)

    assert caught.value.what == message
    assert "torchrun" in caught.value.fix


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (False, False)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, (False, False)),
        (TORCHRUN, (True, False)),
        ({"TORCHELASTIC_RUN_ID": "pymodules-17"}, (True, True)),
    ],
)
def test_who_waits_for_a_process_is_known(environment, expected):
    assert (is_elastic(environment), is_own(environment)) == expected
