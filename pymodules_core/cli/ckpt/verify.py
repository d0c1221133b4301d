"""``pymodules ckpt verify``: reads every byte."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pymodules_core.cli import options, output
from pymodules_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    LostStoreError,
    display_path,
)
from pymodules_core.reports.text import counted

if TYPE_CHECKING:
    from pymodules_core.cli.ckpt.target import Target

_FILE_SUFFIXES = {".pt", ".pth", ".safetensors"}


@click.command("verify")
@click.argument("targets", metavar="EXP_OR_FILE...", nargs=-1, required=True)
@options.data_home
@options.debug
def command(targets: tuple[str, ...], data_home: Path | None) -> int:
    """Read all checkpoints of experiments, or single .pt and .safetensors files and shard folders.

    Exits with 1 where anything is damaged; pymodules ckpt repair mends what can be.
    """
    from pymodules_core.checkpoints.store.records import INDEX_NAME
    from pymodules_core.cli.ckpt.target import open_target
    from pymodules_core.experiment import expand_path

    is_whole = True
    for text in targets:
        file = expand_path(text)
        if file.suffix in _FILE_SUFFIXES or (file / INDEX_NAME).is_file():
            is_whole &= _verify_file(file)
        else:
            try:
                is_whole &= _verify_pools(open_target(text, data_home))
            except LostStoreError as error:
                output.say(f"error: {error}")
                is_whole = False
    return 0 if is_whole else 1


def _verify_pools(target: "Target") -> bool:
    from pymodules_core.checkpoints.file_format.read import digest_of_file
    from pymodules_core.checkpoints.store.paths import Layout
    from pymodules_core.checkpoints.store.records import record_numbers
    from pymodules_core.checkpoints.store.verification import verify_store
    from pymodules_core.checkpoints.tools.lost_store import lost_store
    from pymodules_core.names import pool_names_in

    layout = Layout(target.path)
    if not record_numbers(layout):
        files = [f for name in pool_names_in(target.path) for f in (target.path / name).glob("*")]
        results = [_verify_file(file, root=target.path) for file in sorted(files)]
        if lost := lost_store(target.path, experiment=target.experiment):
            raise lost
        return all(results)
    found = verify_store(layout, digest_of_file)
    for damage in found.damages:
        users = f"; it is part of {', '.join(damage.used_by)}" if damage.used_by else ""
        output.echo(f"damaged: {display_path(damage.path)}: {damage.reason}{users}", err=True)
    if found.damages:
        output.say(
            f"error: {target.name}: {len(found.damages)} of {found.objects} objects and "
            f"{found.views} files are damaged\n  fix: pymodules ckpt repair {target.name}"
        )
        return False
    counts = f"{counted(found.objects, 'object')} and {counted(found.views, 'file')}"
    output.echo(f"{target.name}: {counts} are whole")
    return True


def _verify_file(file: Path, *, root: Path | None = None) -> bool:
    from pymodules_core.checkpoints import read_state_dict

    try:
        state = read_state_dict(file, root=root)
    except CheckpointError as error:
        if root is None and isinstance(error, CheckpointNotFoundError):
            raise
        output.say(f"error: {error}")
        return False
    output.echo(f"{display_path(file)}: whole, {counted(len(state), 'key')}")
    return True
