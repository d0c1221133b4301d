"""Handlers of the signals that end a process."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def signal_handlers(
    names: tuple[str, ...], handle: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals while the ``with`` block runs.

    In threads other than the main one nothing is installed: Python delivers signals there only.
    Signals that the caller ignores, as ``nohup`` does, stay ignored.

    Args:
        names: The signals; one that the system does not have is left out.
        handle: Called with the number and the frame.
    """
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that was not installed from Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
