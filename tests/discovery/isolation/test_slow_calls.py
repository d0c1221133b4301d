"""Calls of plugins that take long: reported with their place, and ended where they have to end."""

import signal
import threading
import time
from contextlib import suppress

import pytest

from pymodules_core.discovery.isolation.slow_calls import CallTimeoutError, watch_call


def stubborn():
    while True:
        with suppress(Exception):
            time.sleep(0.01)
            raise OSError("try again")


def test_a_call_that_takes_long_is_reported_once_with_its_place_and_continues(caplog):
    with watch_call("the hook", warn_after_s=0.05):
        time.sleep(0.15)

    (told,) = caplog.messages
    first, place, code = (line.strip() for line in told.splitlines()[:1] + told.splitlines()[-2:])
    assert first == "the hook takes more than 0.05 s; this is where it is:"
    assert place.startswith(f'File "{__file__}", line ')
    assert code == "time.sleep(0.15)"


@pytest.mark.parametrize("hang", [lambda: time.sleep(10), stubborn], ids=["sleeps", "tries again"])
@pytest.mark.parametrize("warn_after_s", [0.02, 60.0], ids=["reported before", "not told"])
def test_a_call_that_has_to_end_is_ended(caplog, hang, warn_after_s):
    start = time.monotonic()

    with (
        pytest.raises(CallTimeoutError, match=r"it was not done after 0\.05 s"),
        watch_call("the hook", warn_after_s=warn_after_s, ended_after_s=0.05),
    ):
        hang()

    assert time.monotonic() - start < 5
    assert len(caplog.messages) == (warn_after_s < 1)


def test_afterwards_nothing_rings(caplog):
    with watch_call("the hook", warn_after_s=60.0):
        pass

    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert caplog.messages == []


def test_an_alarm_of_the_program_is_left_alone(monkeypatch):
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    try:
        with watch_call("the hook", warn_after_s=0.01, ended_after_s=0.02):
            signal.setitimer(signal.ITIMER_REAL, 0.03)
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGALRM, before)

    assert rung == [True]


def test_an_alarm_that_the_call_sets_stays_its_own():
    def ring(*_):
        pass

    with watch_call("the hook"):
        signal.signal(signal.SIGALRM, ring)
    try:
        assert signal.getsignal(signal.SIGALRM) is ring
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_in_another_thread_nothing_is_watched():
    done = []

    def call():
        with watch_call("the hook", ended_after_s=0.01):
            time.sleep(0.05)
            done.append(True)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

    assert done == [True]
