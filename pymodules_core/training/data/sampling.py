"""Which samples are in which batch: a function of (seed, phase, epoch) and nothing else."""

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from itertools import count, islice
from typing import Any

import attrs
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from pymodules_core.processes.environment import RankInfo
from pymodules_core.rng import IsolatedStreams, derive_seed, mix_seed
from pymodules_core.training.data.rank_share import WHOLE, RankShare, merged_length, split_batches

_SOME = 4096


class EpochSampler(Sampler[int]):
    """Shuffles the indices of a dataset by (seed, epoch) and nothing else.

    Args:
        length: Samples in the dataset.
        seed: The run's seed.

    Attributes:
        epoch: Set before an epoch starts.
    """

    def __init__(self, length: int, seed: int) -> None:
        self._length = length
        self._seed = seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", self.epoch))
        order = torch.randperm(self._length, generator=generator)
        # Numbers of Python take five times as much, in every process.
        for start in range(0, self._length, _SOME):
            yield from order[start : start + _SOME].tolist()

    def __len__(self) -> int:
        return self._length


class CustomSampler(Sampler[Any]):
    """Makes a sampler of the user's a function of (seed, epoch).

    It draws under a stream of its own, its generator is seeded again each epoch, and ``set_epoch``
    is called where there is one. A sampler with a length is asked for as many at once.

    Args:
        sampler: Of indices or of lists of them.
        seed: The run's seed.

    Attributes:
        epoch: Set before an epoch starts.
    """

    def __init__(self, sampler: Iterable[Any], seed: int) -> None:
        self._sampler = sampler
        self._seed = seed
        self.epoch = 0
        # A sampler of batches holds one of indices.
        self._samplers = (sampler, getattr(sampler, "sampler", None))
        self._generators = [
            (generator, generator.initial_seed())
            for generator in (getattr(one, "generator", None) for one in self._samplers)
            if isinstance(generator, torch.Generator)
        ]

    def __iter__(self) -> Iterator[Any]:
        for generator, own_seed in self._generators:
            generator.manual_seed(derive_seed(own_seed, "order", self.epoch))
        for one in self._samplers:
            if callable(set_epoch := getattr(one, "set_epoch", None)):
                set_epoch(self.epoch)
        streams = IsolatedStreams(derive_seed(self._seed, "order", self.epoch))
        with streams:
            iterator = iter(self._sampler)
            epoch = list(islice(iterator, self._promised()))
        yield from epoch
        # It may have no end. A stream for each draw: workers ask ahead, and a resume asks again.
        for number in count():
            streams.seed = derive_seed(self._seed, "order", self.epoch, number)
            with streams:
                try:
                    indices = next(iterator)
                except StopIteration:
                    return
            yield indices

    def __len__(self) -> int:
        return len(self._sampler)  # type: ignore[arg-type]  # TypeError where it has none

    def _promised(self) -> int:
        """Return its length; 0 where it has none, or raises only when called."""
        try:
            return len(self)
        except TypeError:
            return 0


@attrs.define(kw_only=True, eq=False, slots=False)
class EpochBatches(Sampler[Any]):
    """The batches of indices of an epoch, from where a run resumes.

    Args:
        batches: Lists of indices, or indices where the loader does not make batches.
        order: What has to know the epoch; None where the order is always the same.
        makes_batches: ``batches`` gives several indices at a time, whatever holds them.
        seed: Put the seed of each batch before its indices, derived from this one.
        tags_epoch: Put the epoch there instead.
        ranks: Yield what this process has of each batch.
        merges: Join batches that are too small to be split.

    Attributes:
        epoch: Set before an epoch starts.
        done: Batches of it that are left out.
        shares: What this process has of the batches that were asked for, in their order; a loader
            asks ahead.
    """

    _batches: Iterable[Any]
    _order: EpochSampler | CustomSampler | None
    _makes_batches: bool
    _seed: int | None
    _tags_epoch: bool
    _ranks: RankInfo
    _merges: bool
    epoch: int = attrs.field(default=0, init=False)
    done: int = attrs.field(default=0, init=False)
    shares: deque[RankShare] = attrs.field(factory=deque, init=False)

    def __iter__(self) -> Iterator[Any]:
        done, epoch, seed = self.done, self.epoch, self._seed
        if self._order is not None:
            self._order.epoch = epoch
        of_epoch = 0 if seed is None else reading_seed(seed, epoch, self._ranks)
        for number, indices in enumerate(self._rank_batches(done), start=done):
            if seed is None:
                yield indices
                continue
            tag = epoch if self._tags_epoch else mix_seed(of_epoch, number)
            yield [tag, *indices] if self._makes_batches else (tag, indices)

    def __len__(self) -> int:
        batches = len(self._batches)  # type: ignore[arg-type]  # TypeError where it has none
        if not self._merges or type(self._batches) is not BatchSampler:
            return batches
        sampler, size = self._batches.sampler, self._batches.batch_size
        if self._batches.drop_last or not isinstance(sampler, Sized):
            return batches
        return merged_length(len(sampler), size, batches, self._ranks)

    def _rank_batches(self, done: int) -> Iterator[Any]:
        batches = islice(iter(self._batches), done, None)
        if self._ranks.size == 1:
            yield from batches
            return
        self.shares.clear()
        for indices, share in split_batches(batches, self._ranks, merges=self._merges):
            self.shares.append(share)
            yield indices

    def take_rank_share(self) -> RankShare:
        """Return the share that this process has of the next batch of a loader."""
        return self.shares.popleft() if self.shares else WHOLE


def reading_seed(seed: int, epoch: int, ranks: RankInfo) -> int:
    """Return what the seed of each batch's reading is mixed from, with the batch's number.

    Each process has its own: they read different samples of a batch.
    """
    return derive_seed(seed, "batch", epoch, *ranks.rng_key)


def find_batches(
    loader: "DataLoader[Any]", seed: int
) -> tuple[Iterable[Any], EpochSampler | CustomSampler | None]:
    """Return the batches of indices of a loader over a map-style dataset, in an order of our own.

    Shuffled stays shuffled, in order stays in order; other samplers are kept and seeded.

    Args:
        loader: The user's.
        seed: The run's seed.

    Returns:
        The batches, and what has to know the epoch before they are iterated.
    """
    whole = loader.batch_sampler
    if whole is not None and type(whole) is not BatchSampler:
        custom = CustomSampler(whole, seed)
        return custom, custom
    # A loader that was given a batch sampler has a sequential one of its own besides: not asked.
    given = loader.sampler if whole is None else whole.sampler
    sampler, order = _own_sampler(given, length_of(loader.dataset), seed)
    if whole is None:  # batch_size=None: the loader makes no batches
        return sampler, order
    return BatchSampler(sampler, whole.batch_size, whole.drop_last), order


def length_of(dataset: "Dataset[Any]") -> int:
    """Return the number of samples of a dataset; 0 where it has no length."""
    return len(dataset) if isinstance(dataset, Sized) else 0


def _own_sampler(
    sampler: Iterable[Any], length: int, seed: int
) -> tuple[Iterable[Any], EpochSampler | CustomSampler | None]:
    if type(sampler) is SequentialSampler:
        return sampler, None
    own: EpochSampler | CustomSampler
    if type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == length:
        generator = sampler.generator
        # A generator of the user's decides the order: by its seed, seeded again each epoch.
        own = EpochSampler(length, seed if generator is None else generator.initial_seed())
    else:
        own = CustomSampler(sampler, seed)
    return own, own
