"""``pymodules ckpt show``: the tensors of a pool's modules."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from pymodules_core.cli import options, output
from pymodules_core.errors import display_path
from pymodules_core.reports.text import counted, size_text

if TYPE_CHECKING:
    from pymodules_core.checkpoints.file_format.layout_version import LayoutVersion
    from pymodules_core.checkpoints.loading.pool_reader import StoredModule
    from pymodules_core.checkpoints.tools.statistics import TensorStatistics


@click.command("show")
@options.experiment
@click.argument("pool")
@click.argument("modules", nargs=-1)
@options.json
@options.data_home
@options.debug
def command(
    exp: str, pool: str, modules: tuple[str, ...], as_json: bool, data_home: Path | None
) -> None:
    """Show key, shape, dtype, size, mean, standard deviation and range of what POOL holds.

    MODULES chooses some of its modules. What is not finite is left out of the numbers and counted.
    """
    from pymodules_core.cli.ckpt.target import open_target

    target = open_target(exp, data_home)

    from pymodules_core.checkpoints.loading.pool_reader import PoolReader

    found = PoolReader(target.path).read(pool, modules or None)
    if as_json:
        output.print_json([_as_json(name, stored) for name, stored in found.items()])
        return
    if not found:
        output.echo(f"{target.name}: pool {pool} holds no module")
    for number, (name, stored) in enumerate(found.items()):
        if number:
            output.echo()
        _print_module(name, stored)


def _print_module(name: str, stored: "StoredModule") -> None:
    from pymodules_core.checkpoints.tools.statistics import tensor_statistics

    tensors = tensor_statistics(stored.state)
    mark = _mark_of(stored)
    elements = sum(one.elements for one in tensors)
    size = size_text(sum(one.size_bytes for one in tensors))
    epoch = "" if stored.epoch is None else f", epoch {stored.epoch}"
    digest = f", digest {stored.digest[:12]}" if stored.digest else ""
    counts = f"{counted(len(tensors), 'tensor')}, {counted(elements, 'element')}"
    output.echo(f"{name}: {counts}, {size}{epoch}{digest}")
    output.echo(display_path(stored.file))
    if mark.provider is not None:
        output.echo(f"state version {mark.version} of {mark.provider}")
    if tensors:
        output.print_table(
            ("KEY", "SHAPE", "DTYPE", "SIZE", "MEAN", "STD", "MIN", "MAX"),
            [_cells(one) for one in tensors],
        )
    keys = {one.key for one in tensors}
    for key, value in stored.state.items():
        if key not in keys:
            output.echo(f"{key}: {type(value).__name__}, no tensor")
    for one in tensors:
        if one.not_finite:
            counts = f"{one.not_finite:,} of {one.elements:,}"
            output.echo(f"{one.key}: {counts} are NaN or infinite")


def _mark_of(stored: "StoredModule") -> "LayoutVersion":
    from pymodules_core.checkpoints.file_format.layout_version import LayoutVersion

    return LayoutVersion.read(getattr(stored.state, "_metadata", {}), file=stored.file)


def _cells(one: "TensorStatistics") -> tuple[str, ...]:
    numbers = (one.mean, one.std, one.least, one.most)
    return (
        one.key,
        "x".join(map(str, one.shape)) or "scalar",
        one.dtype,
        size_text(one.size_bytes),
        *("-" if number is None else f"{number:.4g}" for number in numbers),
    )


def _as_json(name: str, stored: "StoredModule") -> dict[str, Any]:
    from pymodules_core.checkpoints.tools.statistics import tensor_statistics

    return {
        "module": name,
        "file": str(stored.file),
        "digest": stored.digest,
        "epoch": stored.epoch,
        "state_version": _mark_of(stored).version,
        "tensors": [attrs.asdict(one) for one in tensor_statistics(stored.state)],
    }
