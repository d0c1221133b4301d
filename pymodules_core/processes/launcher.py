"""``Launcher``: starts the processes of one run on this machine, and waits until they have ended.

PyTorch's elastic agent, which torchrun is made of, starts and watches them. It works in a thread of
its own, since its own handling of signals ends processes after 30 s, saved or not, and forgets what
they ended with; here a signal is passed on, and they end when they have saved.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from types import FrameType
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from pymodules_core.processes.environment import OWN_RUN_ID, SECOND_SIGNAL_AFTER_S
from pymodules_core.processes.signal_handlers import signal_handlers

_POLL_S = 0.1
# How long processes that were asked to end at once have, before they are killed.
_END_S = 5.0
# The agent kills what is left 30 s after a process failed: that one did not fail by itself.
_KILLED_BY_AGENT_S = 25
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")  # Windows has the first two


class Launcher:
    """Starts processes of one command that find each other, as ``torchrun --standalone`` does.

    While it waits it passes signals on: the first one to every process, once. A later one asks them
    to end at once; who is left then is killed. Signals that the caller ignores stay ignored.

    Args:
        command: What each of them runs, the program first.
        count: How many.
        is_at_work: Returns whether the processes of these ids handle signals by now. Before, they
            are ended by SIGTERM: for SIGINT Python would print a traceback in each of them.

    Attributes:
        received: The first signal; None so far.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        count: int,
        is_at_work: Callable[[Sequence[int]], bool] = lambda _: True,
    ) -> None:
        self._is_at_work = is_at_work
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self._kill_at: float | None = None
        self._signals: deque[signal.Signals] = deque()
        # This machine alone: its name need not resolve to an address.
        here = "127.0.0.1"
        self._rendezvous = get_rendezvous_handler(
            RendezvousParameters(
                backend="c10d",
                endpoint="localhost:0",
                run_id=f"{OWN_RUN_ID}{os.getpid()}",
                min_nodes=1,
                max_nodes=1,
                local_addr=here,
            )
        )
        self._agent = LocalElasticAgent(
            WorkerSpec(
                role="train",
                local_world_size=count,
                rdzv_handler=self._rendezvous,
                entrypoint=command[0],
                # The agent puts values in place of ${local_rank} and makes $$ a $.
                args=tuple(text.replace("$", "$$") for text in command[1:]),
                max_restarts=0,
                monitor_interval=_POLL_S,
                local_addr=here,
            ),
            DefaultLogsSpecs(log_dir=os.devnull),
        )

    def run(self) -> dict[int, int]:
        """Start them and wait until all have ended.

        Returns:
            The exit code of each that failed by itself, by its rank; a negative one is a signal.
            Nothing where all succeeded.
        """
        with signal_handlers(_SIGNALS, self._keep), ThreadPoolExecutor(1) as thread:
            work = thread.submit(self._agent.run)
            self._wait(work)
        self._rendezvous.shutdown()
        return _failed_first(work.result())

    def _keep(self, number: int, _: FrameType | None) -> None:
        self._signals.append(signal.Signals(number))

    def _wait(self, work: "Future[RunResult]") -> None:
        while not work.done():
            wait([work], timeout=_POLL_S)
            pids = [worker.id for worker in self._agent.get_worker_group().workers]
            if None in pids:
                continue  # a signal waits until all processes are there
            while self._signals:
                self._pass_on(self._signals.popleft(), pids)
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                for pid in pids:
                    with suppress(OSError):
                        os.killpg(pid, signal.SIGKILL)

    def _pass_on(self, number: signal.Signals, pids: Sequence[int]) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = number, now
        elif now - self._received_at < SECOND_SIGNAL_AFTER_S + _POLL_S:
            return
        elif self._kill_at is None:
            self._kill_at = now + _END_S
        else:
            self._kill_at = now
        sent = number if self._is_at_work(pids) else signal.SIGTERM
        for pid in pids:
            with suppress(OSError):  # it has ended
                os.kill(pid, sent)


def _failed_first(result: RunResult) -> dict[int, int]:
    """Return the exit codes of processes that failed, without those that the agent ended for it."""
    failures: Mapping[int, Any] = result.failures
    if not failures:
        return {}
    start = min(failure.timestamp for failure in failures.values())
    codes = {
        rank: failure.exitcode
        for rank, failure in sorted(failures.items())
        if failure.timestamp - start < _KILLED_BY_AGENT_S
    }
    ended_by_agent = -signal.SIGTERM
    return {rank: code for rank, code in codes.items() if code != ended_by_agent} or codes
