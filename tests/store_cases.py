"""A small store to break: two modules, and commits that name three pools each."""

import subprocess
from pathlib import Path

import torch

from pymodules_core.checkpoints.commits import Commit, next_record
from pymodules_core.checkpoints.image import FileImage
from pymodules_core.checkpoints.receipt import Receipt
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.names import BEST, FRZN, INIT, LAST


def images(value: float) -> dict[str, FileImage]:
    """Give the weights of one moment, laid out and sealed, so that a child needs no torch."""
    torch.manual_seed(int(value))
    made = {
        "net": FileImage({"weight": torch.rand(40, 40)}),
        "head": FileImage({"b": torch.ones(2)}),
    }
    for image in made.values():
        image.seal()
    return made


def commit(store: Store, epoch: int, weights: dict[str, FileImage]):
    pools = (LAST, BEST, f"epoch_{epoch}") if epoch else (FRZN, INIT, LAST)
    members = {pool: ["head"] if pool == FRZN else ["net"] for pool in pools}
    asked = Commit(
        receipt=Receipt(pools=pools, epoch=epoch, step=epoch * 10, best_moved=bool(epoch)),
        members=members,
        images=weights,
        metrics={"loss": 1.0 / (epoch + 1)},
        best=None,
        module_names=frozenset(["net", "head"]),
        keep_epochs=1,
        started=0.0,
    )

    def make_record(before):
        used = {name for names in members.values() for name in names}
        return next_record(before, asked, {n: store.objects.add(weights[n]) for n in sorted(used)})

    return store.commit(make_record)


def copy_store(source: Path, target: Path) -> None:
    # With its hard links, which shutil.copytree would not keep.
    subprocess.run(["cp", "-a", source, target], check=True)
