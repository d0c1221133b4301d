"""``RankSync``: what all processes have to decide alike: whether to stop, and the time."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress

import attrs

from pymodules_core.processes.group import Processes
from pymodules_core.training.loop.signals import NOTICE, StopRequest
from pymodules_core.training.parallel.modules import SharedModules

# How long a signal may take to reach all; a sync costs its step some 0.1 ms.
_SYNC_EVERY_S = 0.1


@attrs.define(eq=False, slots=False)
class RankSync:
    """Keeps signals and the clock the same in all processes.

    Every process syncs at the same points. What they agreed on stays as it is until the next sync,
    so that nothing is decided differently in between. In one process nothing is exchanged.

    Args:
        processes: Who has to agree.
        request: The signal of this process.
        notify: Shows one line to the person who waits.
        modules: What the steps of all call alike.

    Attributes:
        received: The signal that any of them received, the first that they agreed on.
        steps: How many steps of several processes have ended, those of evaluations among them.
    """

    _processes: Processes
    _request: StopRequest
    _notify: Callable[[str], None]
    _modules: SharedModules
    received: signal.Signals | None = attrs.field(default=None, init=False)
    steps: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        # Only differences of a monotonic clock mean something on another machine.
        self._started_at = time.monotonic()
        self._elapsed_s = 0.0
        self._skips = 0
        self._calls_left = 0

    def now(self) -> float:
        """Return the time in seconds, the same in all processes."""
        if self._processes.is_alone:
            return time.monotonic()
        return self._started_at + self._elapsed_s

    def sync(self) -> None:
        """Sync now.

        Raises:
            TaskError: The steps of some process called other modules than those of the rest.
        """
        number = self._request.received
        if self._processes.is_alone:
            self.received = number
            return
        elapsed_s = time.monotonic() - self._started_at
        found, latest_s, *bounds = self._processes.all_reduce_max(
            [float(number or 0), elapsed_s, *self._modules.call_bounds()]
        )
        self._modules.check_calls(bounds)
        if found and self.received is None:
            self.received = signal.Signals(int(found))
            # The terminal may be gone, which is what SIGHUP says; the run is to be saved anyhow.
            with suppress(Exception, SystemExit):
                self._notify(NOTICE.format(self.received.name))
        # Calls that fit into the time until the next sync: the same number in each process.
        calls = self._skips + 1
        each_s = (latest_s - self._elapsed_s) / calls
        self._skips = max(0, min(2 * calls, int(_SYNC_EVERY_S / max(each_s, 1e-6))) - 1)
        self._calls_left = self._skips
        self._elapsed_s = latest_s

    def sync_throttled(self) -> None:
        """Sync after a step, unless it was a moment ago."""
        if self._processes.is_alone:
            self.received = self._request.received
            return
        self.steps += 1
        if self._calls_left:
            self._calls_left -= 1
        else:
            self.sync()
