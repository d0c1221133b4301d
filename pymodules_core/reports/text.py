"""Values as people read them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

LONGEST_VALUE = 200  # more than a path of long names: values that differ have to look different
MISSING = "-"


def shorten(value: str, most: int = LONGEST_VALUE) -> str:
    """Cut a text to ``most`` characters on one line, the last one showing that there is more."""
    line = " ".join(value.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def number_text(value: float | None) -> str:
    """Return a measured value in four digits; None was not finite."""
    return "not finite" if value is None else f"{value:.4g}"


def metrics_text(metrics: Mapping[str, float | None]) -> str:
    """Return names with their values; ``-`` where there are none."""
    return ", ".join(f"{name} {number_text(value)}" for name, value in metrics.items()) or MISSING


def setting_text(value: Any) -> str:
    """Return a setting as ``experiment.toml`` has it, texts without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def duration_text(seconds: float | None) -> str:
    """Return a time in the two largest units."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def moment_text(iso: str) -> str:
    """Return date and time in UTC; a text that is none, as it is."""
    try:
        moment = datetime.fromisoformat(iso).astimezone(UTC)
    except (ValueError, OverflowError):
        return iso
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def origin_text(origin: Mapping[str, Any]) -> str:
    """Return where a module came from, as ``run.json`` says it."""
    if origin.get("kind") == "distribution":
        return f"{origin.get('distribution')} {origin.get('version')}"
    return str(origin.get("file") or origin.get("description") or MISSING)


def count_text(number: int | None) -> str:
    """Return a count with thousands separators."""
    return MISSING if number is None else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Return a count with its noun, which takes an s but for one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_text(size_bytes: float) -> str:
    """Return a size in the unit that keeps it short."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
