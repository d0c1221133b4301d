"""What is shown as text: settings, and checkpoints."""

import json
from typing import TYPE_CHECKING

from pymodules_core.experiment import Experiment
from pymodules_core.settings.structure import unstructure

if TYPE_CHECKING:
    from pymodules_core.checkpoints import Receipt


def settings_text(experiment: Experiment) -> str:
    """Show the settings of an experiment, overrides included, as Markdown."""
    shown = json.dumps(unstructure(experiment.settings), indent=2, default=str)
    return f"**{experiment.name}**\n\n```\n{shown}\n```"


def commit_text(receipt: "Receipt") -> str:
    """Show one checkpoint as a line."""
    best = ", best moved" if receipt.best_moved else ""
    return (
        f"commit {receipt.commit}: {', '.join(receipt.pools)}{best}; "
        f"epoch {receipt.epoch}, step {receipt.step}; "
        f"{receipt.bytes_written:,} bytes written, {receipt.bytes_shared:,} shared, "
        f"{receipt.write_ms:.1f} ms, of which training waited {receipt.stall_ms:.1f} ms"
    )
