"""Runs fuzzing cases in a process of its own.

A case is known by its target and its number: what was found once can be looked at again with
``python tests/fuzzing/driver.py TARGET NUMBER``, which prints its input and the whole traceback.
"""

import contextlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

# Its names are as in tests, whoever starts it.
sys.path.insert(0, str(Path(__file__).parents[1]))

import attrs
from fuzzing import files, stores, texts
from fuzzing.cases import Tally, Target, check_message
from fuzzing.guard import Guard

from pymodules_core.errors import PymodulesError

TARGETS: dict[str, type[Target]] = {
    target.name: target for target in (*texts.TARGETS, *files.TARGETS, *stores.TARGETS)
}
# So many cases first, unwatched: what is imported and compiled when it is first needed.
_WARM_UP = 40
_PROGRESS_FILE = "case"


def shares(total: int) -> dict[str, int]:
    """Return how many of ``total`` cases each target gets, in proportion to its share."""
    whole = sum(target.share for target in TARGETS.values())
    return {name: max(1, round(target.share * total / whole)) for name, target in TARGETS.items()}


def fuzz(cases: Mapping[str, range]) -> dict[str, Tally]:
    """Try cases of targets in a process of its own.

    Args:
        cases: Name of a target to the numbers of its cases.

    Raises:
        AssertionError: The process was ended by a case: a hang, or a crash of native code.
    """
    asked = {name: [numbers.start, numbers.stop] for name, numbers in cases.items()}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, json.dumps(asked), folder],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        last = Path(folder, _PROGRESS_FILE)
        case = last.read_text() if last.exists() else "none"
    if done.returncode:
        raise AssertionError(
            f"{case} ended the process ({done.returncode}):\n{done.stderr[-4000:]}"
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: Tally(**tally) for name, tally in found.items()}


def try_cases(target: Target, numbers: range, guard: Guard, progress: Path) -> Tally:
    """Try cases in this process."""
    for number in range(-_WARM_UP, 0):
        with contextlib.suppress(Exception):
            target.try_it(target.prepare(_choice(target.name, number)))
    guard.settle()
    tally = Tally()
    with progress.open("w") as file:
        for number in numbers:
            file.seek(0)
            file.write(f"case {number} of {target.name!r}\n")
            file.flush()
            started = time.perf_counter()
            try:
                given = target.prepare(_choice(target.name, number))
                with guard.case():
                    _try(target, given, tally)
            # Whatever is raised instead of our own errors is what this looks for.
            except Exception as error:  # noqa: BLE001
                trace = "".join(traceback.format_exception(error)[-6:])
                tally.broken[str(number)] = trace[-1500:]
            tally.slowest_s = max(tally.slowest_s, time.perf_counter() - started)
    tally.growth_bytes = guard.growth_bytes
    return tally


def _try(target: Target, given: object, tally: Tally) -> None:
    try:
        target.try_it(given)
    except PymodulesError as error:
        check_message(error)
        tally.refused += 1
    else:
        tally.taken += 1


def _choice(name: str, number: int) -> random.Random:
    return random.Random(f"{name} {number}")


def _be_quiet() -> None:
    logger = logging.getLogger("pymodules_core")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    warnings.simplefilter("ignore")  # torch warns of some pickles that it then refuses


def main(cases: Mapping[str, Sequence[int]], folder: Path) -> None:
    """Try cases and print what came of them as JSON."""
    _be_quiet()
    guard = Guard(folder)
    guard.start()
    tallies = {}
    for number, (name, (start, stop)) in enumerate(cases.items()):
        own = folder / str(number)
        own.mkdir()
        with contextlib.chdir(own):
            target = TARGETS[name](own)
            tallies[name] = try_cases(target, range(start, stop), guard, folder / _PROGRESS_FILE)
    print(json.dumps({name: attrs.asdict(tally) for name, tally in tallies.items()}))  # noqa: T201


def show(name: str, number: int) -> None:
    """Try one case, print its input, and let its error out."""
    _be_quiet()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        target, guard = TARGETS[name](Path(folder)), Guard(Path(folder))
        guard.start()
        given = target.prepare(_choice(name, number))
        print(repr(given)[:4000])  # noqa: T201
        with guard.case():
            target.try_it(given)


if __name__ == "__main__":
    if sys.argv[1].startswith("{"):
        main(json.loads(sys.argv[1]), Path(sys.argv[2]))
    else:
        show(sys.argv[1], int(sys.argv[2]))
