"""Notices when other people's code changes the process around it, says so, and puts it back.

A file or plugin that sets the default dtype or leaves the working directory changes every module
built after it, in an order nobody chose. No torch is imported here: as long as nobody has imported
it, what belongs to torch is as it will begin.
"""

import logging
import os
import random
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import attrs

logger = logging.getLogger("pymodules_core")

_NO_TORCH = object()

Depth: TypeAlias = Literal["step", "call", "code"]


@attrs.frozen(kw_only=True)
class _Setting:
    """One piece of global state.

    Attributes:
        name: What it is called in a warning.
        read: Gives it, or ``_NO_TORCH``.
        restore: Puts it back; None where that cannot be done.
        initial: What it is when torch is imported; None where that depends on the machine.
        depth: How closely code has to be looked at for it: ``step`` after each train step, ``call``
            after other functions that are called while a run goes on. What is not in these may be
            that function's business: a thread of its own, a signal of its own.
    """

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object] | None
    initial: Callable[[], Any] | None = None
    depth: Depth = "code"


def _read_torch(getter: str) -> Callable[[], Any]:
    def read() -> Any:
        torch = sys.modules.get("torch")
        return getattr(torch, getter)() if torch is not None else _NO_TORCH

    return read


def _restore_torch(setter: str) -> Callable[[Any], object]:
    def restore(value: Any) -> None:
        getattr(sys.modules["torch"], setter)(value)

    return restore


def _restore_default_device(value: Any) -> None:
    torch = sys.modules["torch"]
    # Setting it to the CPU would leave a mode behind that costs every call a microsecond.
    torch.set_default_device(None if value == torch.device("cpu") else value)


# Whoever takes one of these keeps the run from being saved: run_failed tells of them as well.
_ENDING = [number for number in signal.Signals if number.name in {"SIGINT", "SIGTERM", "SIGHUP"}]
_OTHERS = [number for number in signal.Signals if number not in _ENDING]


def _read_signal_handlers(numbers: Iterable[signal.Signals]) -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in numbers}


def _restore_signal_handlers(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler and handler is not None:
            signal.signal(number, handler)


def _restore_streams(streams: list[Any]) -> None:
    sys.stdout, sys.stderr = streams


def _restore_path(entries: list[str]) -> None:
    sys.path[:] = entries


# Threads named once: guards are nested, and a thread cannot be put back.
_told: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()

_SETTINGS = (
    _Setting(
        name="default dtype",
        read=_read_torch("get_default_dtype"),
        restore=_restore_torch("set_default_dtype"),
        initial=lambda: sys.modules["torch"].float32,
        depth="step",
    ),
    _Setting(
        name="grad mode",
        read=_read_torch("is_grad_enabled"),
        restore=_restore_torch("set_grad_enabled"),
        initial=lambda: True,
        depth="step",
    ),
    _Setting(
        name="default device",
        read=_read_torch("get_default_device"),
        restore=_restore_default_device,
        initial=lambda: sys.modules["torch"].device("cpu"),
        depth="call",
    ),
    _Setting(
        name="number of torch threads",
        read=_read_torch("get_num_threads"),
        restore=_restore_torch("set_num_threads"),
        depth="call",
    ),
    _Setting(
        name="deterministic mode",
        read=_read_torch("are_deterministic_algorithms_enabled"),
        restore=_restore_torch("use_deterministic_algorithms"),
        initial=lambda: False,
        depth="call",
    ),
    _Setting(
        name="precision of float32 products",
        read=_read_torch("get_float32_matmul_precision"),
        restore=_restore_torch("set_float32_matmul_precision"),
        initial=lambda: "highest",
        depth="call",
    ),
    _Setting(name="working directory", read=os.getcwd, restore=os.chdir, depth="step"),
    _Setting(
        name="standard streams",
        read=lambda: [sys.stdout, sys.stderr],
        restore=_restore_streams,
    ),
    _Setting(name="sys.path", read=lambda: list(sys.path), restore=_restore_path),
    _Setting(
        name="handlers of signals that end a run",
        read=lambda: _read_signal_handlers(_ENDING),
        restore=_restore_signal_handlers,
        depth="call",
    ),
    _Setting(
        name="signal handlers",
        read=lambda: _read_signal_handlers(_OTHERS),
        restore=_restore_signal_handlers,
    ),
    _Setting(
        name="set of running threads",
        read=lambda: set(threading.enumerate()) - set(_told),
        restore=None,
    ),
)
_LOOKED_AT: dict[Depth, tuple[_Setting, ...]] = {
    "step": tuple(one for one in _SETTINGS if one.depth == "step"),
    "call": tuple(one for one in _SETTINGS if one.depth != "code"),
    "code": _SETTINGS,
}


def read_global_state() -> dict[str, Any]:
    """Give all that ``guard_global_state`` looks at, by name."""
    return {setting.name: setting.read() for setting in _SETTINGS}


@contextmanager
def guard_global_state(
    culprit: str, *, depth: Depth = "code", told: set[tuple[str, str]] | None = None
) -> Iterator[None]:
    """Compare global state before and after a block; name and undo what changed.

    Args:
        culprit: Who ran in the block, for the warning.
        depth: How closely to look.
        told: What was warned of, which is not repeated: for blocks that run again and again.
    """
    settings = _LOOKED_AT[depth]
    before = [setting.read() for setting in settings]
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            new = setting.read()
            old = value
            if value is _NO_TORCH and new is not _NO_TORCH:
                old = setting.initial() if setting.initial else new
            if new == old or (setting.restore is None and new < old):
                continue
            if setting.restore is not None:
                setting.restore(old)
            else:
                _told.update(new - old)
            if told is not None:
                if (culprit, setting.name) in told:
                    continue
                told.add((culprit, setting.name))
            logger.warning(
                "%s changed the %s%s; %s",
                culprit,
                setting.name,
                "" if isinstance(old, list | dict | set) else f" from {old} to {new}",
                "it was put back" if setting.restore else "that cannot be undone",
            )


@contextmanager
def keep_random_streams() -> Iterator[None]:
    """Give the caller's random streams back untouched: of ``random``, numpy, and torch on the CPU.

    What the block draws, and whether it draws, shifts nothing that is drawn after it.
    """
    python_state = random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_state = numpy.random.get_state() if numpy is not None else None
    torch_state = torch.random.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if torch is not None:
            torch.random.set_rng_state(torch_state)
