"""Times saving a module that two processes hold in shards, beside what torch has for it.

All save the same FSDP2 module, changed before each save, to the same disk and with fsync, in
interleaved rounds; what is timed is how long training waits. Start it as it is: it starts the
processes itself.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.distributed.checkpoint as dcp
from tables import print_machine, print_table
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pymodules_core import CheckpointManager, ModulePool, Processes

PROCESSES = 2
ROUNDS = 5
WIDTH = 2048
LAYERS = 16  # of 16 MB each


def make_module(processes: Processes) -> nn.Module:
    """Return a module in shards."""
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    return fully_shard(module, mesh=init_device_mesh("cpu", (processes.size,)))


def with_pymodules(
    module: nn.Module, folder: Path, processes: Processes, *, is_sharded: bool
) -> Callable[[int], None]:
    """Return what commits ``last``."""
    pool = ModulePool.from_modules({"net": module}, settings={"net": {"sharded": is_sharded}})
    manager = CheckpointManager(folder, pool, processes=processes)
    manager.start()
    return lambda number: manager.commit("last", epoch=number) and None


def with_dcp(module: nn.Module, folder: Path) -> Callable[[int], None]:
    """Return what saves the shards as torch's own example does."""

    def save(_: int) -> None:
        dcp.save({"net": module.state_dict()}, checkpoint_id=str(folder))

    return save


def with_torch_save(module: nn.Module, folder: Path, processes: Processes) -> Callable[[int], None]:
    """Return what gathers the module, and saves it in the first process."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)

    def save(_: int) -> None:
        state = get_model_state_dict(module, options=options)
        if processes.is_first:
            with (folder / "net.tmp").open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            (folder / "net.tmp").replace(folder / "net.pt")
        processes.barrier()

    return save


def measure(folder: Path) -> None:
    """Time all, in the processes that were started."""
    warnings.simplefilter("ignore")
    with Processes.join() as processes:
        torch.set_num_threads(1)
        module = make_module(processes)
        for name in ("gathered", "sharded", "dcp", "torch"):
            (folder / name).mkdir(exist_ok=True)
        savers = {
            "torch: full state dict, torch.save, fsync, rename": with_torch_save(
                module, folder / "torch", processes
            ),
            "pymodules, gathered into a file": with_pymodules(
                module, folder / "gathered", processes, is_sharded=False
            ),
            "torch: torch.distributed.checkpoint.save": with_dcp(module, folder / "dcp"),
            "pymodules, sharded": with_pymodules(
                module, folder / "sharded", processes, is_sharded=True
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in savers}
        for number in range(1, ROUNDS + 2):
            for name, save in savers.items():
                with torch.no_grad():
                    for parameter in module.parameters():
                        parameter.add_(0.001)
                processes.barrier()
                started_at = time.perf_counter()
                save(number)
                processes.barrier()
                if number > 1:  # the first is a warm-up
                    seconds[name].append(time.perf_counter() - started_at)
        if processes.is_first:
            print_machine()
            base = next(iter(seconds.values()))
            print_table(
                ("a save of 256 MB", "median s", "min s", "of torch.save, median of rounds"),
                [
                    (
                        name,
                        f"{median(found):.2f}",
                        f"{min(found):.2f}",
                        f"{median(a / b for a, b in zip(found, base, strict=True)):.2f}",
                    )
                    for name, found in seconds.items()
                ],
            )


def main() -> None:
    """Start the processes, or measure in one of them."""
    if "RANK" in os.environ:
        measure(Path(sys.argv[1]))
        return
    folder = Path(tempfile.mkdtemp(dir="."))
    try:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(PROCESSES), __file__, str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        subprocess.run(command, check=True, env=environment)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
