"""Where everything lies below ``module_ckps/``."""

from pathlib import Path

from pymodules_core.names import CHECKPOINT_SUFFIX

STORE_NAME = ".store"
RECORD_SUFFIX = ".json"


class Layout:
    """Paths of one store.

    Args:
        path: The folder of the pools.

    Attributes:
        path: The folder of the pools.
        store: The truth behind them.
        objects: Immutable files, named by digest.
        commits: Commit records, named by number.
        stage: What is being made; emptied when a writer opens the store.
        quarantine: What was damaged or changed by hand; never deleted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / STORE_NAME
        self.objects = self.store / "objects"
        self.commits = self.store / "commits"
        self.stage = self.store / "stage"
        self.quarantine = self.store / "quarantine"
        self.lock = self.store / "lock"
        self.holder = self.store / "holder.json"

    def object(self, digest: str) -> Path:
        """Give the file of an object."""
        return self.objects / f"{digest}{CHECKPOINT_SUFFIX}"

    def record(self, number: int) -> Path:
        """Give the file of a commit record."""
        return self.commits / f"{number:08}{RECORD_SUFFIX}"

    def view(self, pool_name: str) -> Path:
        """Give the folder that people see of a pool."""
        return self.path / pool_name
