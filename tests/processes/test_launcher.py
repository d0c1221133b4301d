"""Processes that the launcher starts: what they get, how their ends and signals pass through."""

import signal
import sys

import pytest

from pymodules_core.processes.launcher import Launcher

# Counts signals in a file; the first process sends them to the launcher at given moments, a third
# one when all have seen two, and all last for a while after they have seen one.
COUNTING = """
import os, pathlib, signal, sys, time

folder, moments = pathlib.Path(sys.argv[1]), [float(text) for text in sys.argv[2:]]
rank = os.environ["RANK"]
until = time.monotonic() + 60


def count(number, _):
    with (folder / f"seen_{rank}").open("a") as seen:
        seen.write(f"{signal.Signals(number).name} ")


for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, count)
def all_have_seen(count):
    seen = [path.read_text().split() for path in folder.glob("seen_*")]
    return len(seen) == 2 and all(len(numbers) >= count for numbers in seen)


(folder / f"ready_{rank}").touch()
while len(list(folder.glob("ready_*"))) < 2:
    time.sleep(0.01)
for number, wait_s in enumerate(moments):
    time.sleep(wait_s)
    while number > 1 and not all_have_seen(number) and time.monotonic() < until:
        time.sleep(0.01)
    if rank == "0":
        os.kill(os.getppid(), signal.SIGINT)
while "IGNORED" not in os.environ and not all_have_seen(1) and time.monotonic() < until:
    time.sleep(0.01)
time.sleep(float(os.environ["LAST_S"]))
"""


def launch(source: str, *arguments: str, count: int = 2, **options) -> tuple[Launcher, dict]:
    launcher = Launcher([sys.executable, "-c", source, *arguments], count=count, **options)
    return launcher, launcher.run()


def seen_by(folder) -> list[list[str]]:
    return [(folder / f"seen_{rank}").read_text().split() for rank in (0, 1)]


def test_processes_that_succeed_give_nothing():
    launcher, codes = launch("pass")

    assert codes == {}
    assert launcher.received is None


def test_arguments_arrive_as_they_are(tmp_path):
    # torch's agent takes $$ and ${local_rank} for its own.
    words = ["a=$$1", "${local_rank}", "$HOME", "two words", ""]
    source = (
        "import os, pathlib, sys\n"
        "folder, *words = sys.argv[1:]\n"
        "pathlib.Path(folder, os.environ['RANK']).write_text(repr(words))\n"
    )

    launch(source, str(tmp_path), *words)

    assert [(tmp_path / rank).read_text() for rank in "01"] == [repr(words)] * 2


@pytest.mark.parametrize(
    ("end", "code"),
    [("os._exit(5)", 5), ("os.kill(os.getpid(), signal.SIGKILL)", -9)],
)
def test_the_process_that_fails_is_named_and_not_those_that_are_ended_for_it(end, code):
    _, codes = launch(
        f"import os, signal, time\nif os.environ['RANK'] == '1': {end}\ntime.sleep(60)\n"
    )

    assert codes == {1: code}


def test_a_process_that_something_else_ends_by_sigterm_is_named():
    _, codes = launch("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", count=1)

    assert codes == {0: -signal.SIGTERM}


def test_a_signal_reaches_each_process_once_and_they_end_when_they_are_done(tmp_path, monkeypatch):
    monkeypatch.setenv("LAST_S", "0.5")

    # Twice within a moment is once: a scheduler may tell the launcher and its group.
    launcher, codes = launch(COUNTING, str(tmp_path), "0", "0.2")

    assert seen_by(tmp_path) == [["SIGINT"], ["SIGINT"]]
    assert codes == {}
    assert launcher.received == signal.SIGINT


def test_a_later_signal_is_the_second_and_after_a_third_nobody_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("LAST_S", "60")

    launcher, codes = launch(COUNTING, str(tmp_path), "0", "3.0", "0.1")

    assert [seen[:2] for seen in seen_by(tmp_path)] == [["SIGINT", "SIGINT"]] * 2
    assert codes == {0: -signal.SIGKILL, 1: -signal.SIGKILL}
    assert launcher.received == signal.SIGINT


def test_processes_that_handle_no_signals_yet_are_ended_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setenv("LAST_S", "0.5")
    asked = []

    def is_at_work(pids):
        asked.append(len(pids))
        return False

    launcher, _ = launch(COUNTING, str(tmp_path), "0", is_at_work=is_at_work)

    assert seen_by(tmp_path) == [["SIGTERM"], ["SIGTERM"]]
    assert asked == [2]
    assert launcher.received == signal.SIGINT


def test_a_signal_that_the_caller_ignores_stays_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("LAST_S", "0.5")
    monkeypatch.setenv("IGNORED", "yes")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        launcher, codes = launch(COUNTING, str(tmp_path), "0")
    finally:
        signal.signal(signal.SIGINT, before)

    assert not list(tmp_path.glob("seen_*"))
    assert codes == {}
    assert launcher.received is None


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    launch("pass", count=1)

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
