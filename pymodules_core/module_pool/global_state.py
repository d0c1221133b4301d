"""Notices when a module file changes the process around it, says so, and puts it back.

A file that sets the default dtype or leaves the working directory changes every module built after
it, in an order nobody chose.
"""

import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch

logger = logging.getLogger("pymodules_core")


@attrs.frozen
class _Setting:
    """One piece of global state; ``restore`` is None where it cannot be put back."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object] | None


def _read_signal_handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in signal.Signals}


def _restore_signal_handlers(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler and handler is not None:
            signal.signal(number, handler)


def _restore_path(entries: list[str]) -> None:
    sys.path[:] = entries


# Threads named once: guards are nested, and a thread cannot be put back.
_told: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()

_SETTINGS = (
    _Setting("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Setting("default device", torch.get_default_device, torch.set_default_device),
    _Setting("grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    _Setting("number of torch threads", torch.get_num_threads, torch.set_num_threads),
    _Setting("working directory", os.getcwd, os.chdir),
    _Setting("sys.path", lambda: list(sys.path), _restore_path),
    _Setting("signal handlers", _read_signal_handlers, _restore_signal_handlers),
    _Setting("set of running threads", lambda: set(threading.enumerate()) - set(_told), None),
)


@contextmanager
def guard_global_state(culprit: str) -> Iterator[None]:
    """Compare global state before and after a block; name and undo what changed.

    Args:
        culprit: Who ran in the block, for the warning.
    """
    before = [setting.read() for setting in _SETTINGS]
    try:
        yield
    finally:
        for setting, old in zip(_SETTINGS, before, strict=True):
            new = setting.read()
            if new == old or (setting.restore is None and new < old):
                continue
            if setting.restore is not None:
                setting.restore(old)
            else:
                _told.update(new - old)
            logger.warning(
                "%s changed the %s%s; %s",
                culprit,
                setting.name,
                f" from {old} to {new}" if isinstance(old, str | int | torch.dtype) else "",
                "it was put back" if setting.restore else "that cannot be undone",
            )
