"""Bad input of every kind: an error of ours, within bounds of time and memory, and nothing else.

``-s`` shows a table of what came of the cases, the one of ``docs/reliability.md``.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fuzzing.cases import Tally
from fuzzing.driver import TARGETS, fuzz, shares
from fuzzing.guard import CANARY, CASE_LIMIT_S, MEMORY_LIMIT_BYTES

QUICK_CASES = 1_500
LONG_CASES = 100_000
CHUNKS = 20

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="memory and open files are watched as Linux says of them"
)


def check(tallies: Mapping[str, Tally], cases: int) -> None:
    """Check what came of cases of all targets, each of which has to be able to do both."""
    broken = [
        f"{name} {number}: {text}"
        for name, tally in tallies.items()
        for number, text in list(tally.broken.items())[:3]
    ]
    assert not broken, "\n".join(broken)
    assert tallies.keys() == TARGETS.keys()
    assert sum(tally.cases for tally in tallies.values()) >= cases
    assert max(tally.slowest_s for tally in tallies.values()) < CASE_LIMIT_S
    assert max(tally.growth_bytes for tally in tallies.values()) < MEMORY_LIMIT_BYTES


def table(tallies: Mapping[str, Tally]) -> str:
    """Return the rows of the documentation."""
    rows = ["| input | cases | refused | taken | slowest, s | memory, MB |"]
    for name, tally in tallies.items():
        numbers = f"{tally.cases:,} | {tally.refused:,} | {tally.taken:,}"
        rows.append(
            f"| {name} | {numbers} | {tally.slowest_s:.2f} | {tally.growth_bytes / 1e6:.0f} |"
        )
    return "\n".join(rows)


def test_bad_input_of_every_kind_is_refused_within_bounds():
    tallies = fuzz({name: range(count) for name, count in shares(QUICK_CASES).items()})

    check(tallies, QUICK_CASES)


@pytest.mark.long
def test_a_hundred_thousand_cases_of_bad_input_are_refused_within_bounds():
    chunks = [
        {
            name: range(count * number // CHUNKS, count * (number + 1) // CHUNKS)
            for name, count in shares(LONG_CASES).items()
        }
        for number in range(CHUNKS)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(fuzz, chunks))

    tallies = {name: sum((one[name] for one in found), Tally()) for name in TARGETS}
    print(f"\n{table(tallies)}")  # noqa: T201
    check(tallies, LONG_CASES)


@pytest.mark.parametrize(
    "act",
    [
        "os.system('true')",
        "subprocess.Popen(['true'])",
        f"pickle.loads(b'c{CANARY}\\nrun\\n.')",
        "eval('1 + 1')",
        "open('/etc/passwd')",
        "open('../outside', 'w')",
        "os.rename('a', '../b')",
        "(b'x' * (MEMORY_LIMIT_BYTES + (64 << 20))).count(b'y')",
    ],
)
def test_the_watch_sees_what_no_input_may_do(tmp_path, act):
    found = watch(tmp_path, act)

    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("AssertionError: it ")


def test_the_watch_lets_be_what_is_allowed(tmp_path):
    found = watch(tmp_path, "open('inside', 'w').close(); open('inside').close(); int('1')")

    assert found.returncode == 0, found.stderr


def test_the_watch_ends_what_hangs(tmp_path):
    found = watch(tmp_path, "time.sleep(60)", case_limit_s=1)

    assert found.returncode == 1
    assert found.stderr.startswith("Timeout (0:00:01)!")


def watch(
    folder: Path, act: str, *, case_limit_s: float = CASE_LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """Do something under the watch."""
    script = (
        "import os, pickle, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from fuzzing.guard import MEMORY_LIMIT_BYTES, Guard\n"
        "Path('a').touch()\n"
        f"guard = Guard(Path('.'), case_limit_s={case_limit_s})\n"
        "guard.start()\n"
        "with guard.case():\n"
        "    try:\n"
        f"        {act}\n"
        "    except ModuleNotFoundError:\n"
        "        pass\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
