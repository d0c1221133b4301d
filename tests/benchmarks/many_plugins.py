"""Times ``pymodules list`` with 300 installed plugins, 100 of them broken in 25 different ways.

Whole processes in interleaved rounds. What the 200 good ones import themselves is measured apart:
a process that imports what they stand on and then each of them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from broken_plugins import write_good_and_broken
from tables import print_machine, print_table

GOOD, BROKEN = 200, 100


def main() -> int:
    """Write the plugins, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="rounds that count")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="pymodules-plugins-") as folder:
        write_good_and_broken(Path(folder), good=GOOD, broken=BROKEN)
        names = ", ".join(f"good_{number:03}" for number in range(GOOD))
        base = "import attrs, pymodules_core.discovery"
        listing = [sys.executable, "-m", "pymodules_core", "list"]
        commands = {
            f"`pymodules list`, {GOOD + BROKEN} plugins": (listing, folder),
            "`pymodules list`, no plugin": (listing, ""),
            "importing the good ones": ([sys.executable, "-c", f"{base}, {names}"], folder),
            "importing none of them": ([sys.executable, "-c", base], folder),
        }
        rounds = [
            {name: _time_s(*command) for name, command in commands.items()} for _ in range(runs + 1)
        ][1:]
    print_machine()
    print(f"Whole processes, {runs} interleaved rounds after one that does not count.")
    rows = []
    for name in commands:
        times = [one[name] for one in rounds]
        rows.append([name, *(f"{value:.3f}" for value in (median(times), min(times), max(times)))])
    with_all, without, good, none = commands
    own = median(one[with_all] - (one[good] - one[none]) for one in rounds)
    rows.append(["list, without the imports of the good ones", f"{own:.3f}", "", ""])
    added = median(one[with_all] - one[without] for one in rounds)
    rows.append(["what 300 plugins add", f"{added:.3f}", "", ""])
    print_table(["process", "median s", "min s", "max s"], rows)
    return 0


def _time_s(command: list[str], site: str) -> float:
    environment = {**os.environ, "PYTHONPATH": site}
    start = time.perf_counter()
    subprocess.run(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
