"""Sharded modules, saved by real processes: as a script it plays scenes one after the other."""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint.filesystem as torch_files
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard

from pymodules_core import CheckpointManager, ModulePool, Processes
from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.errors import PymodulesError
from pymodules_core.processes.dtensor import gathered, is_dtensor

FULL = "full.pt"
OUTCOMES = "outcomes.json"


class Net(nn.Module):
    """All that is hard to cut: rows that do not divide, ties, single rows, and odd buffers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        # One row: all processes but the first have an empty part of what is tied.
        self.narrow = nn.Linear(4, 1)
        self.mate = nn.Linear(4, 1)
        self.mate.weight = self.narrow.weight
        self.half = nn.Linear(3, 3).to(torch.bfloat16)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("empty", torch.empty(0, 3))
        self.register_buffer("turned", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("wide", torch.ones(2, dtype=torch.complex128))
        self.seen = 3

    def get_extra_state(self):
        return {"seen": self.seen, "deep": [1, 2.5, None, {"t": torch.ones(2)}]}

    def set_extra_state(self, state):
        self.seen = state["seen"]


def shard(net: nn.Module, processes: Processes, **more) -> nn.Module:
    return fully_shard(net, mesh=init_device_mesh("cpu", (processes.size,)), **more)


def pool_of(net: nn.Module) -> ModulePool:
    return ModulePool.from_modules({"net": net}, settings={"net": {"sharded": True}})


def grow(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)


def whole(net: nn.Module) -> dict[str, object]:
    return {
        key: gathered(value) if isinstance(value, torch.Tensor) else value
        for key, value in net.state_dict().items()
    }


def moments(net: Net) -> dict[str, object]:
    moment = net.embed.weight.detach() * 2
    return {"main": {"net.embed.weight": {"exp_avg": moment, "step": torch.tensor(3.0)}}}


def scene_pools(folder: Path, processes: Processes) -> object:
    """Commit weights, the same again, and others; what a reader should find is beside them."""
    net = shard(Net(), processes)
    with CheckpointManager(folder / "ckps", pool_of(net), processes=processes) as ckps:
        ckps.start()
        grow(net)
        state = {"state": {"a": 1}, "module_states": {"net": moments(net)}}
        first = ckps.commit("last", "best", "epoch_1", epoch=1, metrics={"loss": 1.0}, **state)
        ckps.wait()
        again = ckps.commit("last", epoch=1, step=3, **state)
        ckps.wait()
    full = whole(net)
    if processes.is_first:
        torch.save(full, folder / FULL)
    return {"first": first.bytes_written, "again": again.bytes_written}


def scene_retention(folder: Path, processes: Processes) -> object:
    """Commit epochs of which one is kept."""
    net = shard(Net(), processes)
    ckps = CheckpointManager(folder / "ckps", pool_of(net), processes=processes, keep_epochs=1)
    with ckps:
        ckps.start()
        for epoch in range(1, 5):
            grow(net)
            ckps.commit("last", f"epoch_{epoch}", epoch=epoch)
    return None


def scene_extra_state(folder: Path, processes: Processes) -> object:
    """Commit two epochs that differ in what is not a tensor, and then other weights."""
    net = shard(Net(), processes)
    with CheckpointManager(folder / "ckps", pool_of(net), processes=processes) as ckps:
        ckps.start()
        grow(net)
        for epoch in (1, 2):
            net.seen = epoch
            ckps.commit("last", f"epoch_{epoch}", epoch=epoch)
        grow(net)
        ckps.commit("last", epoch=3)
    return None


def scene_faults(folder: Path, processes: Processes) -> object:
    """Let disks refuse, and damage a shard: each time the next commit has to be whole."""
    net = shard(Net(), processes)
    ckps = CheckpointManager(folder / "ckps", pool_of(net), processes=processes)
    ckps.start()
    epoch = 0

    def commit() -> str:
        nonlocal epoch
        epoch += 1
        try:
            ckps.commit("last", epoch=epoch)
            ckps.wait()
        except PymodulesError as error:
            return f"{type(error).__name__}: {error.what}"
        return "whole"

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    outcomes = {}
    for name, owner, method in (
        ("the disk of the record", Disk, "rename"),
        ("the disk of a shard", torch_files.FileSystem, "create_stream"),
    ):
        grow(net)
        is_broken = processes.is_first if owner is Disk else processes.rank == 1
        before = getattr(owner, method)
        if is_broken:
            setattr(owner, method, refuse)
        outcomes[name] = commit()
        processes.barrier()
        staged = list((folder / "ckps/.store/stage").iterdir())
        outcomes[f"left of {name}"] = len(staged)
        processes.barrier()
        setattr(owner, method, before)
        outcomes[f"after {name}"] = commit()
    if processes.is_first:
        damage(sorted((folder / "ckps/last/net").glob("shard*"))[0])
    processes.barrier()
    outcomes["after damage"] = commit()
    ckps.close()
    full = whole(net)
    if processes.is_first:
        torch.save(full, folder / FULL)
    return outcomes


def scene_kinds(folder: Path, processes: Processes) -> object:
    """Save what is cut by columns, what is held by several, and what no shard can hold."""
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (processes.size, 1), mesh_dim_names=("copies", "parts"))
    nets = {
        "columns": shard(
            nn.Linear(4, 6, bias=False), processes, shard_placement_fn=lambda _: Shard(1)
        ),
        "copies": fully_shard(nn.Linear(4, 6), mesh=mesh),
    }
    for name, net in nets.items():
        with CheckpointManager(folder / name, pool_of(net), processes=processes) as ckps:
            ckps.start()
        full = whole(net)
        if processes.is_first:
            torch.save(full, folder / f"{name}.pt")
    complex_net = nn.Module()
    complex_net.weight = nn.Parameter(torch.zeros(4, 2, dtype=torch.complex128))
    shard(complex_net, processes)
    try:
        CheckpointManager(folder / "wide", pool_of(complex_net), processes=processes).start()
    except PymodulesError as error:
        return {"wide": str(error)}
    return {}


def scene_gathered(folder: Path, processes: Processes) -> object:
    """Save the same module without shards."""
    net = shard(Net(), processes)
    pool = ModulePool.from_modules({"net": net})
    with CheckpointManager(folder / "ckps", pool, processes=processes) as ckps:
        ckps.start()
    full = whole(net)
    if processes.is_first:
        torch.save(full, folder / FULL)
    return None


def scene_resume(folder: Path, processes: Processes) -> object:
    """Go on from what other processes wrote, in shards of this one's own."""
    net = shard(Net(), processes)
    with CheckpointManager(folder / "ckps", pool_of(net), processes=processes) as ckps:
        resumed = ckps.resume()
    slots = resumed.module_states["net"]["main"]["net.embed.weight"]
    found = {
        "net": whole(net),
        "parts": is_dtensor(slots["exp_avg"]),
        "exp_avg": gathered(slots["exp_avg"]),
        "step": slots["step"],
    }
    if processes.is_first:
        torch.save(found, folder / "resumed.pt")
    return None


def scene_killed(folder: Path, processes: Processes) -> object:
    """Lose the second process while it writes its shard."""
    net = shard(Net(), processes)
    ckps = CheckpointManager(folder / "ckps", pool_of(net), processes=processes)
    ckps.start()
    full = whole(net)
    if processes.is_first:
        torch.save(full, folder / FULL)
    grow(net)
    if processes.rank == 1:

        def die(_: object, path: object, *__: object) -> None:
            Path(str(path)).write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)

        torch_files.FileSystem.create_stream = die
    ckps.commit("last", epoch=1)
    return None


SCENES: dict[str, Callable[[Path, Processes], object]] = {
    name.removeprefix("scene_"): scene
    for name, scene in list(globals().items())
    if name.startswith("scene_")
}


def damage(file: Path) -> None:
    """Flip one bit, in place: also in what is linked to the file."""
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)


def outcomes_of(folder: Path) -> list[dict[str, object]]:
    """Return what each process said at the end of a scene."""
    return json.loads((folder / OUTCOMES).read_text())


def main() -> None:
    """Play scenes: the folder, then their names; each has a folder below."""
    with Processes.join() as processes:
        for name in sys.argv[2:]:
            folder = Path(sys.argv[1]) / name
            processes.run_on_rank0(lambda folder=folder: folder.mkdir(exist_ok=True))
            outcomes = processes.gather(SCENES[name](folder, processes))
            if processes.is_first:
                (folder / OUTCOMES).write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()
