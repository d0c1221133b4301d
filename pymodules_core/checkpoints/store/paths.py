"""Where everything lies below ``module_ckps/``."""

import stat
from pathlib import Path

from pymodules_core.errors import CheckpointFileError
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
        shown: What the views were left holding, a note for each pool.
        quarantine: What was damaged or changed by hand; never deleted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / STORE_NAME
        self.objects = self.store / "objects"
        self.commits = self.store / "commits"
        self.stage = self.store / "stage"
        self.shown = self.store / "shown"
        self.quarantine = self.store / "quarantine"
        self.lock = self.store / "lock"
        self.holder = self.store / "holder.json"

    def check(self) -> None:
        """Refuse a store in which a link or a pipe is in the place of a folder or file of its own.

        A writer empties, moves and overwrites what it finds there: in a folder that came from a
        stranger a link would have it do so anywhere.

        Raises:
            CheckpointFileError: One is.
        """
        folders = (self.store, self.objects, self.commits, self.stage, self.shown, self.quarantine)
        for path in (*folders, self.lock, self.holder):
            try:
                mode = path.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            is_kind, kind = (stat.S_ISDIR, "folder") if path in folders else (stat.S_ISREG, "file")
            if not is_kind(mode):
                raise CheckpointFileError(
                    f"is {'a link' if stat.S_ISLNK(mode) else f'not a {kind}'}, and a store has a "
                    f"{kind} of its own there",
                    file=path,
                    found=stat.filemode(mode)[0],
                    fix=f"remove it, or put the {kind} itself there",
                )

    def object(self, digest: str) -> Path:
        """Return the file of an object."""
        return self.objects / f"{digest}{CHECKPOINT_SUFFIX}"

    def record(self, number: int) -> Path:
        """Return the file of a commit record."""
        return self.commits / f"{number:08}{RECORD_SUFFIX}"

    def note(self, pool_name: str) -> Path:
        """Return the file that says what the view of a pool was left holding."""
        return self.shown / f"{pool_name}{RECORD_SUFFIX}"

    def view(self, pool_name: str) -> Path:
        """Return the folder that people see of a pool."""
        return self.path / pool_name
