"""What is shown as text: settings, and checkpoints."""

import json

from pymodules_core import CommitResult, Experiment
from pymodules_core.plugin_api import unstructure


def settings_text(experiment: Experiment) -> str:
    """Show the settings of an experiment, overrides included, as Markdown."""
    shown = json.dumps(unstructure(experiment.settings), indent=2, default=str)
    return f"**{experiment.name}**\n\n```\n{shown}\n```"


def commit_text(receipt: "CommitResult") -> str:
    """Show one checkpoint as a line."""
    best = ", best moved" if receipt.best_moved else ""
    return (
        f"commit {receipt.commit}: {', '.join(receipt.pools)}{best}; "
        f"epoch {receipt.epoch}, step {receipt.step}; "
        f"{receipt.bytes_written:,} bytes written, {receipt.bytes_shared:,} shared, "
        f"{receipt.write_ms:.1f} ms, of which training waited {receipt.stall_ms:.1f} ms"
    )
