"""SIGINT, SIGTERM and SIGHUP end a run after the step at hand, saved; a second one at once."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from pymodules_core.processes.signal_handlers import signal_handlers

if TYPE_CHECKING:
    from typing import Self

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
NOTICE = "{}: finishing this step and saving; once more ends at once, without saving"


class StopRequest(Protocol):
    """Whether a run was asked to end."""

    @property
    def received(self) -> signal.Signals | None:
        """The signal that asked; None so far."""


class StopSignals:
    """Remembers that the run was asked to end, while its ``with`` block runs.

    Which signals it handles, and in which thread, is that of ``signal_handlers``.

    Args:
        notify: Shows one line to the person who waits.
        again_after_s: How much later than the first a second signal has to come to end the run at
            once. Each of several processes may get one twice: from a scheduler and the launcher.

    Attributes:
        received: The first signal; None so far.
    """

    def __init__(
        self, notify: Callable[[str], None] = lambda _: None, *, again_after_s: float = 0.0
    ) -> None:
        self._again_after_s = again_after_s
        self._received_at = 0.0
        self.received: signal.Signals | None = None
        self._notify = notify
        self._process = 0
        self._handlers = ExitStack()

    def __enter__(self) -> "Self":
        self._process = os.getpid()
        self._handlers.enter_context(signal_handlers(_NAMES, self._handle))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A process that was forked meanwhile: no run of its own is there to be saved.
            self._end(number)
        elif self.received is None:
            self.received = signal.Signals(number)
            self._received_at = time.monotonic()
            # The stream may be in the middle of a line, and refuse another in it; the terminal may
            # be gone, which is what SIGHUP says. rich exits where nobody reads its pipe.
            with suppress(Exception, SystemExit):
                self._notify(NOTICE.format(self.received.name))
        elif time.monotonic() - self._received_at >= self._again_after_s:
            self._end(number)

    def _end(self, number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
