"""``Batches``: the data of a task as batches, from which a run can resume in mid-epoch.

Order and random numbers of the data are a function of (seed, epoch, batch). So the number of
workers does not matter, and a resume starts at the right batch: without reading those
before it where the data has indices, by reading and dropping them where it has not.

Where items may draw, streams are seeded before a batch is read and again before its step, since
restoring the stream of the step would take twice as long. Plain tensors draw nothing, and the
run's stream continues from step to step.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any, Literal

import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from pymodules_core.processes.environment import RankInfo
from pymodules_core.rng import IsolatedStreams, derive_seed, mix_seed, seed_streams
from pymodules_core.settings import TrainSettings
from pymodules_core.training.data.checks import check_data, is_sharded
from pymodules_core.training.data.items import SeededItems, WorkerStart
from pymodules_core.training.data.rank_share import WHOLE, RankShare
from pymodules_core.training.data.sampling import EpochBatches, find_batches, reading_seed
from pymodules_core.training.data.workers import read_from_workers
from pymodules_core.training.state.encoding import decode_state, encode_state
from pymodules_core.training.state.user_state import Stateful

logger = logging.getLogger("pymodules_core")

Phase = Literal["train", "eval"]

# What DataLoader takes besides the dataset and what decides its batches. Not `in_order`: batches
# that overtake others would be lost or come twice in a resume.
_LOADER_OPTIONS = (
    "collate_fn",
    "multiprocessing_context",
    "num_workers",
    "persistent_workers",
    "pin_memory",
    "prefetch_factor",
    "timeout",
)


class Batches:
    """The batches of one phase, iterated once an epoch.

    Args:
        data: What the task's function returned.
        phase: ``train`` shuffles datasets.
        settings: Batch size, workers and seed.
        pin_memory: Whether batches go to a CUDA device.
        ranks: Which of several processes this is: it gets its share of each batch.

    Attributes:
        is_sharded: The data gives each process a shard of its own, of which no other one knows
            how many batches it has.
        was_compared: First batches were compared: all processes may have got the same.

    Raises:
        TaskError: The data is empty, no iterable, can be read only once, or several processes
            cannot split it.
    """

    def __init__(
        self,
        data: Any,
        *,
        phase: Phase,
        settings: TrainSettings,
        pin_memory: bool,
        ranks: RankInfo | None = None,
    ) -> None:
        check_data(data, f"{phase}_data", settings)
        self._phase: Phase = phase
        self._ranks = ranks or RankInfo()
        self._seed = derive_seed(settings.seed, phase)
        self._order: EpochBatches | None = None
        # Each with the seed that says which stream it is.
        self._generators: list[tuple[torch.Generator, int]] = []
        # In worker processes there are copies of it, and what they know does not come back.
        is_here = not isinstance(data, Dataset) or settings.num_workers == 0
        self._stateful = data if isinstance(data, Stateful) and is_here else None
        # Else what it promises is the user's: a custom sampler may count wrongly.
        self._is_length_known = False
        if isinstance(data, Dataset):
            data = _batched(data, phase, settings, pin_memory=pin_memory)
            self._is_length_known = not isinstance(data.dataset, IterableDataset)
        self.was_compared = False
        self._may_draw = not _draws_nothing(data)
        self.is_sharded = self._ranks.size > 1 and is_sharded(data, f"{phase}_data")
        self._is_read_here = True
        if isinstance(data, DataLoader):
            self._is_read_here = not data.num_workers
            data = self._seeded_loader(data, settings)
        self._batches: Iterable[Any] = data

    @property
    def promised(self) -> int | None:
        """Batches that an epoch must have: known where the trainer batches a dataset itself."""
        return self.length if self._is_length_known and not self.is_sharded else None

    @property
    def length(self) -> int | None:
        """Batches in an epoch, or None where that is not known, here or in other processes."""
        if self.is_sharded:
            return None
        try:
            return len(self._batches)  # type: ignore[arg-type]  # TypeError is the answer
        except TypeError:
            return None

    def epoch(self, epoch: int, *, done: int = 0) -> Iterator[Any]:
        """Start the batches of an epoch.

        Args:
            epoch: Which one.
            done: Batches of it that were trained already and are left out.
        """
        own = self._ranks.rng_key if self.is_sharded else ()
        for generator, seed in self._generators:
            generator.manual_seed(derive_seed(seed, self._phase, epoch, *own))
        if self._order is not None:
            self._order.epoch, self._order.done = epoch, done
        batches = self._seeded(epoch, done) if self._may_draw else self._iterate()
        if not done or self._order is not None or self._stateful is not None:
            return batches
        if not isinstance(self._batches, list | tuple):
            logger.warning(
                "%s_data has neither indices nor state_dict: %d batches of epoch %d are read and "
                "dropped, to resume after them",
                self._phase,
                done,
                epoch,
            )
        return islice(batches, done, None)

    def take_rank_share(self) -> RankShare:
        """Return the share that this process has of the batch that ``epoch`` just yielded."""
        return WHOLE if self._order is None else self._order.take_rank_share()

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of data that keeps one itself; None for any other."""
        if self._stateful is None:
            return None
        state = self._stateful.state_dict()
        return {"data": encode_state(state, name=f"{self._phase}_data().state_dict()")}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Load what ``state_dict`` returned."""
        if self._stateful is not None and state is not None:
            self._stateful.load_state_dict(decode_state(state["data"]))

    def _iterate(self) -> Iterator[Any]:
        batches = iter(self._batches)
        return batches if self._is_read_here else read_from_workers(batches)

    def _seeded(self, epoch: int, done: int) -> Iterator[Any]:
        """Read each batch under streams of its own, and leave those of its step."""
        with IsolatedStreams(derive_seed(self._seed, "start", epoch)):
            batches = self._iterate()
        reading = reading_seed(self._seed, epoch, self._ranks)
        stepping = derive_seed(self._seed, "step", epoch, *self._ranks.rng_key)
        for number in count(0 if self._order is None and self._stateful is None else done):
            if self._is_read_here:
                seed_streams(mix_seed(reading, number))
            try:
                batch = next(batches)
            except StopIteration:
                return
            seed_streams(mix_seed(stepping, number))
            yield batch
            del batch  # its memory is free for the next one

    def _seeded_loader(self, loader: "DataLoader[Any]", settings: TrainSettings) -> Any:
        """Return a loader like the user's that draws by epoch, not from the run's stream."""
        if type(loader) is not DataLoader:
            if self._stateful is None:
                self._take_over(loader)
            if not isinstance(loader.worker_init_fn, WorkerStart):
                loader.worker_init_fn = WorkerStart(loader.worker_init_fn)
            return loader
        if isinstance(loader.dataset, IterableDataset):
            # New workers each epoch: those that stay keep their streams from epoch to epoch, and no
            # resume brings them back.
            options = self._options_of(loader) | {"persistent_workers": False}
            return DataLoader(
                loader.dataset, batch_size=loader.batch_size, drop_last=loader.drop_last, **options
            )
        return self._with_own_order(loader, settings)

    def _with_own_order(self, loader: "DataLoader[Any]", settings: TrainSettings) -> Any:
        """Return a loader like the user's whose order and random numbers depend on the epoch.

        Where items draw in the training process, ``_seeded`` seeds them.
        """
        is_by_sample = settings.seed_items == "sample"
        is_tagged = self._may_draw and (is_by_sample or loader.num_workers > 0)
        batches, order = find_batches(loader, settings.seed)
        self._order = EpochBatches(
            batches=batches,
            order=order,
            makes_batches=loader.batch_sampler is not None,
            seed=self._seed if is_tagged else None,
            tags_epoch=is_by_sample,
            ranks=RankInfo() if self.is_sharded else self._ranks,
            merges=self._phase == "eval",
        )
        dataset = loader.dataset
        if is_tagged:
            dataset = SeededItems(dataset, self._seed if is_by_sample else None)
        options = self._options_of(loader)
        if loader.batch_sampler is None:
            options |= {"sampler": self._order, "batch_size": None}
        else:
            options["batch_sampler"] = self._order
        return DataLoader(dataset, **options)

    def _options_of(self, loader: "DataLoader[Any]") -> dict[str, Any]:
        """Return the arguments of a loader like the user's, with a generator of its own."""
        generator = torch.Generator()
        given = loader.generator
        self._generators.append((generator, given.initial_seed() if given else self._seed))
        options: dict[str, Any] = {name: getattr(loader, name) for name in _LOADER_OPTIONS}
        if not loader.num_workers:
            del options["prefetch_factor"], options["multiprocessing_context"]
        return options | {
            "generator": generator,
            "worker_init_fn": WorkerStart(loader.worker_init_fn),
        }

    def _take_over(self, loader: "DataLoader[Any]") -> None:
        """Seed a loader of the user's own class by epoch, apart from the run's stream."""
        sampler = loader.sampler
        if loader.generator is None:
            loader.generator = torch.Generator().manual_seed(self._seed)
        if isinstance(sampler, RandomSampler) and sampler.generator is None:
            sampler.generator = loader.generator
        found = (loader.generator, getattr(sampler, "generator", None))
        self._generators = [(g, g.initial_seed()) for g in found if isinstance(g, torch.Generator)]


def _batched(
    dataset: "Dataset[Any]", phase: Phase, settings: TrainSettings, *, pin_memory: bool
) -> "DataLoader[Any]":
    is_indexed = not isinstance(dataset, IterableDataset)
    return DataLoader(
        dataset,
        batch_size=settings.batch_size,
        shuffle=phase == "train" if is_indexed else None,
        num_workers=settings.num_workers,
        pin_memory=pin_memory,
    )


def _draws_nothing(data: Any) -> bool:
    """Return whether reading a batch surely draws no random number, in any process."""
    if type(data) is not DataLoader:
        return isinstance(data, list | tuple)
    return data.collate_fn is default_collate and _is_of_tensors(data.dataset)


def _is_of_tensors(dataset: Any) -> bool:
    if type(dataset) is Subset:
        return _is_of_tensors(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return all(map(_is_of_tensors, dataset.datasets))
    return type(dataset) is TensorDataset
