"""What tests share."""

import os
import subprocess
import sys

from pymodules_core.discovery import PluginManager, PluginRecord
from pymodules_core.testing import TINY_MODULE, TINY_TASK, write_experiment

__all__ = [
    "GOOD_PLUGIN",
    "TINY_MODULE",
    "TINY_TASK",
    "record_of",
    "start_command",
    "write_experiment",
]

GOOD_PLUGIN = """
from pymodules_core import ModuleSpec, hookimpl

@hookimpl
def provide_module(context):
    return ModuleSpec(name="good", factory="torch.nn:Identity", settings={"frozen": True})
"""


def start_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``pymodules`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pymodules_core", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def record_of(plugins: PluginManager, distribution: str) -> PluginRecord:
    """Return the record of a distribution's only plugin."""
    return next(r for r in plugins.records if r.name.startswith(f"{distribution}:"))
