"""``pymodules ckpt lineage``: where weights came from; no torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from pymodules_core.cli import options, output
from pymodules_core.errors import CheckpointNotFoundError
from pymodules_core.run_files import CHECKPOINTS_DIR_NAME

if TYPE_CHECKING:
    from pymodules_core.checkpoints.store.records import CommitRecord
    from pymodules_core.checkpoints.tools.lineage import Ancestor
    from pymodules_core.specs import WeightsOrigin


@click.command("lineage")
@options.experiment
@options.json
@options.data_home
@options.debug
def command(exp: str, as_json: bool, data_home: Path | None) -> None:
    """Draw where the initial weights of each module of EXP came from, back through experiments."""
    from pymodules_core.checkpoints.tools.lineage import ancestry, newest_record
    from pymodules_core.cli.ckpt.target import open_target

    target = open_target(exp, data_home)
    experiment = target.experiment
    record = newest_record(experiment.path) if experiment else None
    if experiment is None or record is None:
        raise CheckpointNotFoundError(
            "holds no commit of an experiment, so nothing says where its weights came from",
            file=target.path,
            fix="name an experiment that was trained",
        )
    ancestors = ancestry(experiment.data_home, experiment.path)
    if as_json:
        output.print_json([attrs.asdict(one) for one in ancestors])
        return
    output.echo(_headline(experiment.name, record))
    for one in ancestors:
        output.echo(one.module or "")
        _draw(one)


def _headline(name: str, record: "CommitRecord") -> str:
    known = record.provenance.get("versions", {})
    facts = [
        f"commit {record.number} of {record.time:%Y-%m-%d %H:%M} UTC",
        f"epoch {record.epoch}",
        *(f"{name} {version}" for name, version in known.items()),
    ]
    if git := record.provenance.get("git_commit"):
        facts.append(f"git {git[:12]}")
    return f"{name}: {', '.join(facts)}"


def _draw(one: "Ancestor") -> None:
    """Draw what one module came from, a line a step back."""
    indent = ""
    while one.origin is not None:
        text = _source_text(one.origin, is_there=one.is_there)
        output.echo(f"{indent}└─ {text}")
        indent += "   "
        if one.parent is None:
            return
        one = one.parent
    if one.module is not None:
        output.echo(f"{indent}└─ as built")
    elif one.same_as:
        output.echo(f"{indent}└─ same content as {', '.join(one.same_as)}")


def _source_text(origin: "WeightsOrigin", *, is_there: bool | None) -> str:
    if origin.experiment is None:
        name = f"{CHECKPOINTS_DIR_NAME}/{origin.ckp_name}"
    else:
        name = f"{origin.experiment}/{origin.pool}/{origin.module}"
    epoch = "" if origin.epoch is None else f", epoch {origin.epoch}"
    gone = ", which holds other weights now" if is_there is False else ""
    return f"{name}{epoch}, digest {origin.digest[:12]}{gone}"
