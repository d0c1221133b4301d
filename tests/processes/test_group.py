"""How processes find each other; what they tell each other is in ``tests/training/parallel``."""

import socket
from datetime import timedelta

import pytest
import torch.distributed as dist

from pymodules_core import Processes
from pymodules_core.errors import ProcessesError
from pymodules_core.processes import group


def test_a_process_whose_first_one_is_not_there_says_where_it_looked(monkeypatch):
    monkeypatch.setattr(group, "_JOIN_TIMEOUT", timedelta(seconds=1))
    with socket.socket() as taken:  # a port at which nobody answers
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for name, value in {
            "RANK": "1",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }.items():
            monkeypatch.setenv(name, value)

        with pytest.raises(ProcessesError) as caught, Processes.join():
            pass

    assert caught.value.what.startswith("the 2 processes did not find each other: ")
    assert f"MASTER_ADDR:MASTER_PORT, which is 127.0.0.1:{port} here" in caught.value.fix
    assert not dist.is_initialized()


def test_one_process_alone_answers_at_once():
    with Processes.alone() as processes:
        assert processes.gather(3) == [3]
        assert processes.run_on_rank0(lambda: 4) == 4
        assert processes.run_on_all(lambda: 5) == 5
        assert processes.all_reduce_max([1.0, 2.0]) == [1.0, 2.0]

    assert not dist.is_initialized()


def test_an_error_of_one_process_alone_is_its_own():
    error = ValueError("ouch")

    with Processes.alone() as processes:
        assert processes.failure(error) is error
