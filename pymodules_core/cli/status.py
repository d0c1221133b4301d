"""``pymodules status``: how far the runs of a data home are, read from ``run.json``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import click

from pymodules_core.cli import options, output
from pymodules_core.errors import display_path
from pymodules_core.reports.text import size_text


@click.command("status")
@click.argument("exp", metavar="[EXP]", required=False)
@options.json
@options.data_home
@options.debug
def command(exp: str | None, as_json: bool, data_home: Path | None) -> None:
    """Show state, epoch, best metric, age and size of every experiment's run, or of EXP's."""
    from pymodules_core.experiment import Experiment, default_data_home, list_experiments

    if exp is not None:
        paths = [Experiment.open(exp, data_home=data_home).path]
    else:
        paths = list_experiments(default_data_home(data_home))
    rows = [_describe(path) for path in paths]
    if as_json:
        output.print_json(rows)
    elif rows:
        _print_rows(rows)
    else:
        home = display_path(default_data_home(data_home))
        output.echo(f"no experiments in {home}; pymodules new NAME writes one")


def _print_rows(rows: list[dict[str, Any]]) -> None:
    output.print_table(
        ("EXPERIMENT", "STATE", "EPOCH", "BEST", "UPDATED", "SIZE"),
        [
            (
                row["name"],
                row["state"],
                "-" if row["epoch"] is None else f"{row['epoch']}/{row['epochs']}",
                _best_text(row["best"]),
                _age_text(row["updated"]),
                size_text(row["size_bytes"]),
            )
            for row in rows
        ],
    )
    for row in rows:
        if row["error"]:
            output.say(f"{row['name']}: {row['error']}", err=False)


def _describe(path: Path) -> dict[str, Any]:
    from pymodules_core.run_files import RUN_FILE_NAME, read_run_file

    run = read_run_file(path)
    data = path / "data"
    state = "unreadable" if (data / RUN_FILE_NAME).exists() else "not trained"
    if run is not None:
        state = run.state_on_disk
    known = attrs.asdict(run) if run else {}
    return {
        "name": path.name,
        "path": str(path),
        "state": state,
        **{key: known.get(key) for key in ("epoch", "epochs", "step", "best", "metrics", "error")},
        "updated": run.updated.isoformat() if run else None,
        "size_bytes": _size_bytes(data),
    }


def _size_bytes(folder: Path) -> int:
    """Return the bytes of all files; one that has several names counts once."""
    status = [file.lstat() for file in folder.rglob("*") if file.is_file()]
    return sum({(one.st_dev, one.st_ino): one.st_size for one in status}.values())


def _best_text(best: dict[str, Any] | None) -> str:
    if not best or best["value"] is None:
        return "-"
    return f"{best['metric']} {best['value']:.4g} (epoch {best['epoch']})"


def _age_text(updated: str | None) -> str:
    if updated is None:
        return "-"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(updated)).total_seconds()
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(seconds, 0) / size:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} d ago"
