"""Ways to keep ``last``, ``best`` and every epoch of a training run, each as its users write it.

All of them run the same epochs: train, save ``last``, evaluate, save ``last``, ``best`` and the
epoch. The loss falls from epoch to epoch, so ``best`` moves every time.
"""

import importlib.util
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import torch
from torch import nn

from pymodules_core import CheckpointManager, ModulePool

if TYPE_CHECKING:
    from pymodules_core import CommitResult

SIDE = 1024


class Workload:
    """Modules that change, and compute of a fixed amount on all cores.

    Args:
        modules: How many.
        size_bytes: Of all of them together.
        train_s: About how long training takes an epoch; evaluation takes half of it.
    """

    def __init__(self, *, modules: int, size_bytes: int, train_s: float) -> None:
        torch.manual_seed(0)
        layers = size_bytes // modules // (SIDE * SIDE * 4)
        self.modules = {
            f"net_{n}": nn.Sequential(*(nn.Linear(SIDE, SIDE, bias=False) for _ in range(layers)))
            for n in range(modules)
        }
        self.size_bytes = modules * layers * SIDE * SIDE * 4
        self._weights = [p.data for net in self.modules.values() for p in net.parameters()]
        self._factor = torch.randn(SIDE, SIDE)
        self._result = torch.empty(SIDE, SIDE)
        self._compute(20)
        start = time.perf_counter()
        self._compute(40)
        self._train_products = int(40 * train_s / (time.perf_counter() - start))

    def train(self) -> None:
        """Compute, and change every weight."""
        self._compute(self._train_products)
        torch._foreach_mul_(self._weights, 1.0001)

    def evaluate(self) -> None:
        """Compute half as much."""
        self._compute(self._train_products // 2)

    def copy_into(self, buffers: list[torch.Tensor]) -> None:
        """Copy all weights: what every save beside training has to wait for."""
        torch._foreach_copy_(buffers, self._weights)

    def buffers(self) -> list[torch.Tensor]:
        """Return memory for ``copy_into`` that was touched before."""
        return [torch.zeros_like(weight) for weight in self._weights]

    def _compute(self, products: int) -> None:
        for _ in range(products):
            torch.mm(self._factor, self._factor, out=self._result)


@attrs.define
class Clock:
    """Tells the time of the epochs, and adds up the time inside the calls.

    Attributes:
        started: When the first epoch began, everything being ready.
        in_calls_s: Seconds inside the calls.
    """

    started: float = 0.0
    in_calls_s: float = 0.0

    def start(self) -> None:
        """Begin: the first epoch does."""
        self.started = time.perf_counter()

    @contextmanager
    def in_call(self) -> Iterator[None]:
        """Count the time of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.in_calls_s += time.perf_counter() - start


class Peer(Protocol):
    """One way to save.

    Attributes:
        name: For the table.
        durable: Whether what it calls saved survives a loss of power.
    """

    name: str
    durable: str

    def train(self, work: Workload, epochs: int, folder: Path, clock: Clock) -> None:
        """Train, save below ``folder``, and return when all is saved."""


class Loop:
    """The loop of those who bring none of their own."""

    def train(self, work: Workload, epochs: int, folder: Path, clock: Clock) -> None:
        """Train and save."""
        self.open(work, folder)
        clock.start()
        for epoch in range(1, epochs + 1):
            work.train()
            with clock.in_call():
                self.save(["last"], epoch)
            work.evaluate()
            with clock.in_call():
                self.save(["last", "best", f"epoch_{epoch}"], epoch)
        self.close()

    def open(self, work: Workload, folder: Path) -> None:
        """Get ready; not on the clock."""

    def save(self, pools: list[str], epoch: int) -> None:
        """Save."""

    def close(self) -> None:
        """Return when all is saved."""


class Nothing(Loop):
    """No checkpoints."""

    name, durable = "no checkpoints", "no"


class Floor(Loop):
    """One copy an epoch into memory, and nothing on disk."""

    name, durable = "one copy into reused buffers", "no"

    def open(self, work: Workload, folder: Path) -> None:  # noqa: ARG002  as every peer
        """Make the buffers."""
        self._work, self._buffers = work, work.buffers()

    def save(self, pools: list[str], epoch: int) -> None:  # noqa: ARG002
        """Copy once an epoch: the weights of the second save are those of the first."""
        if pools == ["last"]:
            self._work.copy_into(self._buffers)


class Pymodules(Loop):
    """This package."""

    name, durable = "pymodules", "yes"

    def __init__(self, *, asynchronous: bool = True) -> None:
        self._asynchronous = asynchronous
        self.receipts: list[CommitResult] = []
        if not asynchronous:
            self.name = "pymodules, asynchronous = false"

    def open(self, work: Workload, folder: Path) -> None:
        """Save the initial weights."""
        self.receipts = []
        self._manager = CheckpointManager(
            folder, ModulePool.from_modules(work.modules), asynchronous=self._asynchronous
        )
        self._manager.start()

    def save(self, pools: list[str], epoch: int) -> None:
        """Commit."""
        metrics = {"loss": 1 / epoch}
        self.receipts.append(self._manager.commit(*pools, epoch=epoch, metrics=metrics))

    def close(self) -> None:
        """Wait for the disk."""
        self._manager.close()


class Plain(Loop):
    """``torch.save`` into a temporary folder, then a copy to each pool."""

    name, durable = "torch.save, then copies", "no"

    def open(self, work: Workload, folder: Path) -> None:
        """Remember where."""
        self._work, self._folder = work, folder

    def save(self, pools: list[str], epoch: int) -> None:  # noqa: ARG002
        """Save once, copy to every pool."""
        temporary = self._folder / "temporary"
        temporary.mkdir(parents=True, exist_ok=True)
        for name, module in self._work.modules.items():
            torch.save(module.state_dict(), temporary / f"{name}.pt")
        for pool in pools:
            shutil.copytree(temporary, self._folder / pool, dirs_exist_ok=True)


class Synced(Loop):
    """``torch.save``, fsync and rename, for each file of each pool."""

    name, durable = "torch.save, fsync, rename", "yes"

    def open(self, work: Workload, folder: Path) -> None:
        """Remember where."""
        self._work, self._folder = work, folder

    def save(self, pools: list[str], epoch: int) -> None:  # noqa: ARG002
        """Save each file of each pool."""
        for pool in pools:
            target = self._folder / pool
            target.mkdir(parents=True, exist_ok=True)
            for name, module in self._work.modules.items():
                with (target / f"{name}.tmp").open("wb") as file:
                    torch.save(module.state_dict(), file)
                    file.flush()
                    os.fsync(file.fileno())
                (target / f"{name}.tmp").replace(target / f"{name}.pt")
            descriptor = os.open(target, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


class Distributed(Loop):
    """``torch.distributed.checkpoint.async_save`` with a stager that keeps its memory.

    ``best`` is the number of an epoch, and costs nothing.
    """

    name, durable = "DCP async_save", "files, not names"

    def open(self, work: Workload, folder: Path) -> None:
        """Make the stager; the first save fills its memory, as ``start`` does here."""
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        self._work, self._folder = work, folder
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=False,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=False,
            )
        )
        self._pending: Any = None
        self._save("init")
        self._pending.result()

    def save(self, pools: list[str], epoch: int) -> None:  # noqa: ARG002
        """Save ``last``, or the epoch, once the save before is done."""
        self._save(pools[-1])

    def close(self) -> None:
        """Wait for the disk."""
        self._pending.result()
        self._stager.close()

    def _save(self, name: str) -> None:
        from torch.distributed.checkpoint import FileSystemWriter, async_save

        if self._pending is not None:
            self._pending.result()
        # Else the folder would hold files of both.
        shutil.rmtree(self._folder / name, ignore_errors=True)
        self._pending = async_save(
            {name: module.state_dict() for name, module in self._work.modules.items()},
            storage_writer=FileSystemWriter(self._folder / name),
            async_stager=self._stager,
            no_dist=True,
        )


class Lightning:
    """Lightning's ``ModelCheckpoint``: one for ``best`` and ``last``, one for every epoch."""

    name, durable = "Lightning ModelCheckpoint", "no"

    def train(self, work: Workload, epochs: int, folder: Path, clock: Clock) -> None:
        """Train and save in a ``Trainer``."""
        import lightning
        from lightning.pytorch.callbacks import ModelCheckpoint

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

        class Timed(ModelCheckpoint):
            def on_train_epoch_end(self, *args: Any) -> None:
                with clock.in_call():
                    super().on_train_epoch_end(*args)

            def on_validation_end(self, *args: Any) -> None:
                with clock.in_call():
                    super().on_validation_end(*args)

        class Network(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.automatic_optimization = False
                self.nets = nn.ModuleDict(work.modules)
                # Lightning saves only where its optimizers stepped.
                self.counter = nn.Parameter(torch.zeros(1))

            def on_train_start(self) -> None:
                clock.start()

            def training_step(self, _: Any) -> None:
                work.train()
                self.optimizers().step()

            def validation_step(self, _: Any) -> None:
                work.evaluate()
                self.log("loss", 1 / (self.current_epoch + 1))

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD([self.counter], lr=0.1)

        data = torch.utils.data.DataLoader([0])
        every_epoch = Timed(folder, "epoch_{epoch}", save_top_k=-1, every_n_epochs=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lightning.Trainer(
                accelerator="cpu",
                max_epochs=epochs,
                callbacks=[Timed(folder, "best", monitor="loss", save_last=True), every_epoch],
                num_sanity_val_steps=0,
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(Network(), data, data)


PEERS: list[Callable[[], Peer]] = [
    Floor,
    Pymodules,
    lambda: Pymodules(asynchronous=False),
    Plain,
    Synced,
    Distributed,
    *([Lightning] if importlib.util.find_spec("lightning") else []),
]
