"""The tables of ``docs/reliability.md``: read for tests, and their counts updated.

``python tests/docs/reliability.py`` counts the cases of the linked tests again.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import attrs

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "reliability.md"

_ROW = re.compile(r"^\| (?P<number>[0-9+]+) \| (?P<cells>.+) \|$")
_LINK = re.compile(r"\[(\w+)\]\(\.\./([^)]+\.py)\)")
_CELL = re.compile(r" (?<!\\)\| ")


@attrs.frozen
class Fault:
    """One row.

    Attributes:
        line: Where it is, from 0.
        number: Its number in the table.
        what: The fault.
        tried: How often it is provoked; more than a number where one test does so many times.
        outcome: What happens then.
        tests: File below the repository and function.
    """

    line: int
    number: str
    what: str
    tried: str
    outcome: str
    tests: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        links = ", ".join(f"[{name}](../{file})" for file, name in self.tests)
        return f"| {self.number} | {self.what} | {self.tried} | {self.outcome} | {links} |"


def faults(page: Path = PAGE) -> list[Fault]:
    """Return all rows."""
    found = []
    for line, text in enumerate(page.read_text("utf-8").splitlines()):
        if row := _ROW.match(text):
            what, tried, outcome, links = _CELL.split(row["cells"])
            tests = tuple((file, name) for name, file in _LINK.findall(links))
            found.append(Fault(line, row["number"], what, tried, outcome, tests))
    return found


def count_cases() -> Counter[tuple[str, str]]:
    """Count the cases of every test: file below the repository and function to how many."""
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    cases = (line.partition("[")[0].split("::") for line in listed.stdout.splitlines())
    return Counter((case[0], case[-1]) for case in cases if len(case) > 1)


def tried(fault: Fault, counts: Counter[tuple[str, str]]) -> str:
    """Return how often a fault is provoked; what a person wrote stays."""
    if fault.tried and not fault.tried.isdigit():
        return fault.tried
    # Those of packages are collected in environments of their own.
    return str(sum(counts[test] or 1 for test in fault.tests))


def main() -> None:
    """Write the counts into the page."""
    counts = count_cases()
    lines = PAGE.read_text("utf-8").splitlines()
    for fault in faults():
        lines[fault.line] = str(attrs.evolve(fault, tried=tried(fault, counts)))
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
