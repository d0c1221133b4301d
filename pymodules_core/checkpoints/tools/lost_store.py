"""Distinguishes a lost store from one that never was: what else shows that there were commits."""

from pathlib import Path

from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records, record_numbers
from pymodules_core.errors import LostStoreError, display_path, list_words
from pymodules_core.experiment import Experiment
from pymodules_core.names import pool_names_in
from pymodules_core.run_files import checkpoints_dir, trace_of_commits


def lost_store(path: Path, *, experiment: Experiment | None = None) -> LostStoreError | None:
    """Return what to raise where commits were made and none can be read; None else.

    Args:
        path: The folder of the pools.
        experiment: Whose it is; None for a folder outside an experiment.
    """
    layout = Layout(path)
    if readable_records(layout):
        return None
    trace = (trace_of_commits(experiment.path) if experiment else None) or _trace_in(layout)
    if trace is None:
        return None
    file, what = trace
    missing, back = _missing(layout)
    # A name would need the data home, which may be given on the command line.
    name = display_path(experiment.path if experiment else path)
    fixes = [f"put {display_path(back)} back from a copy, with its hidden files"]
    if record_numbers(layout) or pool_names_in(path):
        fixes.insert(0, f"pymodules ckpt repair {name} makes a commit of what is whole")
    if experiment:
        fixes.append(
            f"pymodules train {name} --reset starts a new run and keeps this one as data.<n>"
        )
    return LostStoreError(
        f"{what}, but its commits are lost: {missing}",
        file=file,
        found=str(back),
        fix="; or ".join(fixes),
    )


def refuse_lost_store(experiment: Experiment) -> None:
    """Refuse to resume a run, and so to start one over it, whose commits are lost.

    Objects alone are not a run: one that was killed before its first commit leaves them.

    Raises:
        LostStoreError: They are.
    """
    path = checkpoints_dir(experiment.path)
    is_run = trace_of_commits(experiment.path) or record_numbers(Layout(path))
    if (is_run or pool_names_in(path)) and (error := lost_store(path, experiment=experiment)):
        raise error


def _trace_in(layout: Layout) -> tuple[Path, str] | None:
    """Return what in a store without a readable commit is left of one."""
    if not layout.store.is_dir():
        return None  # pools without a store: plain files
    if numbers := record_numbers(layout):
        return layout.commits, f"holds {len(numbers)} commits"
    if pools := pool_names_in(layout.path):
        return layout.path, f"holds {list_words(pools)}"
    if layout.objects.is_dir() and (count := sum(1 for _ in layout.objects.iterdir())):
        return layout.objects, f"holds {count} objects"
    return None


def _missing(layout: Layout) -> tuple[str, Path]:
    """Return what is missing of a store, and what to put back."""
    for path in (layout.path, layout.store, layout.commits):
        if not path.is_dir():
            return f"{display_path(path)} is missing", path
    if record_numbers(layout):
        return f"no record in {display_path(layout.commits)} can be read", layout.path
    return f"{display_path(layout.commits)} is empty", layout.path
