"""What a commit did and cost."""

import attrs


@attrs.frozen(kw_only=True)
class Receipt:
    """One commit.

    Attributes:
        pools: Pools that were written, in the order of a run.
        epoch: The epoch it belongs to; 0 before training.
        step: Train steps so far.
        best_moved: Whether ``best`` was proposed and taken.
        stall_ms: Milliseconds the caller waited.
        write_ms: Milliseconds until everything was on disk.
        bytes_written: Bytes of all files written.
        bytes_shared: Bytes that pools share instead of writing them again.
        durable: Files and folders were synced to the disk.
    """

    pools: tuple[str, ...]
    epoch: int
    step: int
    best_moved: bool
    stall_ms: float
    write_ms: float
    bytes_written: int
    bytes_shared: int
    durable: bool
