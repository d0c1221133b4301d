"""What a commit did and cost."""

import attrs


@attrs.define(kw_only=True)
class CommitResult:
    """One commit; the last five are known once it is done.

    Attributes:
        pools: Pools that were written, in the order of a run.
        epoch: The epoch it belongs to; 0 before training.
        step: Train steps so far.
        best_moved: Whether ``best`` was proposed and taken.
        stall_ms: Milliseconds the caller waited.
        commit: Its number; 0 until it is done.
        write_ms: Milliseconds from the call until everything was on disk.
        bytes_written: Bytes of all files written.
        bytes_shared: Bytes of modules that were there already.
        durable: Everything is on disk, synced: the commit survives a crash.
    """

    pools: tuple[str, ...]
    epoch: int
    step: int
    best_moved: bool
    stall_ms: float = 0.0
    commit: int = 0
    write_ms: float = 0.0
    bytes_written: int = 0
    bytes_shared: int = 0
    durable: bool = False


Receipt = CommitResult
