"""What tells how a run came about, kept with each of its commits."""

import subprocess
from pathlib import Path
from typing import Any

from pymodules_core.module_pool import ModulePool
from pymodules_core.versions import versions


def provenance_of(pool: ModulePool) -> dict[str, Any]:
    """Give what is known of a run from its pool: origins of modules, versions, the git commit.

    Args:
        pool: The modules. The commit is that of their experiment, else of the current folder.
    """
    return {
        "modules": {name: origin.to_json() for name, origin in pool.origins.items()},
        "versions": versions(),
        "git_commit": git_commit(pool.experiment.path if pool.experiment else Path.cwd()),
    }


def git_commit(folder: Path) -> str | None:
    """Give the commit of the repository around ``folder``, or None where there is none."""
    try:
        result = subprocess.run(  # noqa: S603  a fixed command
            ["git", "-C", str(folder), "rev-parse", "HEAD"],  # noqa: S607  the user's own git
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
