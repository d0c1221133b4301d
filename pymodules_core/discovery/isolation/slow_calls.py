"""Says which code of a plugin keeps everybody waiting, and ends a call that has to end.

With an alarm of the system, SIGALRM: it costs a call some microseconds, finds the main thread where
it waits, and interrupts it there. A thread that watches would have to be started for each call, and
could end none.
"""

import logging
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("pymodules_core")

WARN_AFTER_S = 60.0
_AGAIN_AFTER_S = 1.0
_MOST_FRAMES = 4
# Windows has none.
_ALARM = getattr(signal, "SIGALRM", None)


class CallTimeoutError(BaseException):
    """A call was ended that took too long.

    No ``Exception``: a loop that tries again whatever is raised would try again after this, too.
    """


@contextmanager
def watch_call(
    culprit: str, *, warn_after_s: float = WARN_AFTER_S, ended_after_s: float | None = None
) -> Iterator[None]:
    """Warn once where a block takes long, with the place where it is.

    Nothing is watched in threads other than the main one, and where the alarm is in use already: by
    a block around this one, or by the program.

    Args:
        culprit: Who runs in the block, for the warning.
        warn_after_s: When to warn.
        ended_after_s: When to raise ``CallTimeoutError`` in the block, and then each second: what
            catches it and continues is interrupted again. None lets it take its time.
    """
    if (
        _ALARM is None
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(_ALARM) != signal.SIG_DFL
    ):
        yield
        return
    is_reported = is_over = False

    def ring(_: int, frame: FrameType | None) -> None:
        nonlocal is_reported
        if is_over:  # it rang while it was put off
            return
        if ended_after_s is not None and (is_reported or ended_after_s <= warn_after_s):
            raise CallTimeoutError(f"it was not done after {ended_after_s:g} s")
        is_reported = True
        stack = traceback.format_list(traceback.extract_stack(frame)[-_MOST_FRAMES:])
        logger.warning(
            "%s takes more than %g s; this is where it is:\n%s",
            culprit,
            warn_after_s,
            "".join(stack).rstrip(),
        )
        if ended_after_s is not None:
            signal.setitimer(signal.ITIMER_REAL, ended_after_s - warn_after_s, _AGAIN_AFTER_S)

    first_s = warn_after_s if ended_after_s is None else min(warn_after_s, ended_after_s)
    signal.signal(_ALARM, ring)
    try:
        again_s = _AGAIN_AFTER_S if first_s == ended_after_s else 0
        signal.setitimer(signal.ITIMER_REAL, first_s, again_s)
        yield
    finally:
        is_over = True
        # Unless the block has set an alarm of its own, which is its business.
        if signal.getsignal(_ALARM) is ring:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(_ALARM, signal.SIG_DFL)
