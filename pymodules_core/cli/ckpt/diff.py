"""``pymodules ckpt diff``: how two pools differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from pymodules_core.cli import options, output

if TYPE_CHECKING:
    from pymodules_core.checkpoints.tools.comparison import Difference, ModuleDifference


@click.command("diff")
@options.experiment
@click.argument("pool_a")
@click.argument("pool_b")
@click.argument("modules", nargs=-1)
@click.option("--other", metavar="EXP", help="Take POOL_B from another experiment or folder.")
@click.option("--all", "show_all", is_flag=True, help="List tensors that did not change too.")
@options.json
@options.data_home
@options.debug
def command(
    exp: str,
    pool_a: str,
    pool_b: str,
    modules: tuple[str, ...],
    other: str | None,
    show_all: bool,
    as_json: bool,
    data_home: Path | None,
) -> None:
    """Compare POOL_A with POOL_B: per module and tensor how far the weights moved.

    RELATIVE is |b - a| / |a| with Euclidean norms, COSINE the angle between both, LARGEST the
    largest change of one element. MODULES chooses some modules.
    """
    from pymodules_core.cli.ckpt.target import open_target

    first = open_target(exp, data_home)
    second = open_target(other, data_home) if other else first

    from pymodules_core.checkpoints.loading.pool_reader import PoolReader
    from pymodules_core.checkpoints.tools.comparison import compare_modules

    a = PoolReader(first.path).read(pool_a, modules or None)
    b = PoolReader(second.path).read(pool_b, modules or None)
    found = {name: compare_modules(name, a[name], b[name]) for name in a if name in b}
    alone = {
        **{name: f"only in {pool_a}" for name in a if name not in b},
        **{name: f"only in {pool_b}" for name in b if name not in a},
    }
    if as_json:
        _print_json(found, alone)
        return
    _print_table(found, show_all=show_all)
    for name, note in alone.items():
        output.echo(f"{name}: {note}")


def _print_table(found: "Mapping[str, ModuleDifference]", *, show_all: bool) -> None:
    rows, same = [], []
    for name, module in found.items():
        changed = [key for key in module.keys if show_all or not key.is_same]
        if not changed:
            same.append(name)
            continue
        count = sum(not key.is_same for key in module.keys)
        note = f"{count} of {len(module.keys)} tensors changed"
        rows.append(_cells(module.total, name=name, note=note))
        rows += [_cells(key, name=f"  {key.name}", note=key.note or "") for key in changed]
    if rows:
        output.print_table(("MODULE", "RELATIVE", "COSINE", "LARGEST", ""), rows)
    for name in same:
        output.echo(f"{name}: same")


def _cells(one: "Difference", *, name: str, note: str) -> tuple[str, ...]:
    if one.note:
        return (name, "-", "-", "-", note)
    return (name, f"{one.relative:.4g}", f"{one.cosine:.6f}", f"{one.largest:.4g}", note)


def _print_json(found: "Mapping[str, ModuleDifference]", alone: Mapping[str, str]) -> None:
    output.print_json(
        [
            {**attrs.asdict(module.total), "keys": [attrs.asdict(key) for key in module.keys]}
            for module in found.values()
        ]
        + [{"name": name, "note": note} for name, note in alone.items()]
    )
