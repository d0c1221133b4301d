"""What the benchmarks print: a line about the machine, and a plain markdown table."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def print_machine() -> None:
    """Print the cores this process may use, the processor, Python and torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"Machine: {cores} cores ({_processor()}), {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {version('torch')}"
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a markdown table; the first column is text, the others are numbers."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    print()
    print(_line(columns, widths))
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print(_line(rules, widths))
    for row in rows:
        print(_line(row, widths))
    print()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(aligned)} |"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
