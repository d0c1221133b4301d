"""How several processes split batches: nothing is lost, nothing comes twice, means stay means."""

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from pymodules_core.errors import TaskError
from pymodules_core.processes.environment import RankInfo
from pymodules_core.settings import TrainSettings
from pymodules_core.training.data import Batches
from pymodules_core.training.data.rank_share import split_batches

batch_sizes = st.lists(st.integers(1, 9), min_size=1, max_size=6)
sizes = st.integers(2, 5)


def batches_of(lengths):
    samples = iter(range(sum(lengths)))
    return [[next(samples) for _ in range(length)] for length in lengths]


def split(batches, size, *, merges):
    """Return what each process gets: its parts and shares."""
    ranks = [RankInfo(rank=rank, size=size) for rank in range(size)]
    return [list(split_batches(batches, one, merges=merges)) for one in ranks]


@given(batch_sizes, sizes)
def test_training_keeps_every_batch_and_the_mean_over_its_samples(lengths, size):
    batches = batches_of(lengths)
    split_up = split(batches, size, merges=False)

    for number, batch in enumerate(batches):
        parts = [mine[number] for mine in split_up]
        counted = [indices for indices, share in parts if share.is_counted]
        assert list(chain.from_iterable(counted)) == batch
        # The mean over processes of weight times local mean is the mean over the batch.
        means = [share.weight * sum(indices) / len(indices) for indices, share in parts]
        assert sum(means) / size == pytest.approx(sum(batch) / len(batch))


@given(batch_sizes, sizes)
def test_evaluation_meets_every_sample_once_and_as_often_in_each_process(lengths, size):
    split_up = split(batches_of(lengths), size, merges=True)

    met = [i for mine in split_up for indices, share in mine if share.is_counted for i in indices]
    assert sorted(met) == list(range(sum(lengths)))
    assert len({len(mine) for mine in split_up}) == 1
    assert all(indices for mine in split_up for indices, _ in mine)


def batches_for(rank, data, *, size=2, phase="train", **settings):
    return Batches(
        data,
        phase=phase,
        settings=TrainSettings(**settings),
        pin_memory=False,
        ranks=RankInfo(rank=rank, size=size),
    )


def numbers(batches, epoch=1, done=0):
    return [batch[0].tolist() for batch in batches.epoch(epoch, done=done)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [0, 1])
def test_the_order_is_that_of_one_process(workers, done):
    data = TensorDataset(torch.arange(23))
    whole = Batches(data, phase="train", settings=TrainSettings(batch_size=8), pin_memory=False)
    of = {"batch_size": 8, "num_workers": workers}
    parts = [numbers(batches_for(rank, data, **of), 3, done) for rank in (0, 1)]

    assert [a + b for a, b in zip(*parts, strict=True)] == numbers(whole, 3, done)


def test_the_length_of_an_evaluation_counts_a_batch_that_was_too_small():
    data = TensorDataset(torch.arange(9))
    batches = batches_for(1, data, size=3, phase="eval", batch_size=4)

    assert batches.length == batches.promised == len(numbers(batches)) == 2


def test_processes_draw_differently_for_their_parts_and_alike_by_sample():
    class Noisy(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.rand(())

    def drawn(rank, **settings):
        loaded = batches_for(rank, Noisy(), batch_size=8, **settings).epoch(1)
        return [value for batch in loaded for value in batch.tolist()]

    whole = Batches(
        Noisy(),
        phase="train",
        settings=TrainSettings(batch_size=8, seed_items="sample"),
        pin_memory=False,
    )

    assert not set(drawn(0)) & set(drawn(1))
    by_sample = drawn(0, seed_items="sample") + drawn(1, seed_items="sample")
    assert by_sample == next(whole.epoch(1)).tolist()


class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(2)] * 4)


class Own(SequentialSampler):
    pass


DATA = TensorDataset(torch.arange(8))


def marked(data, *, sharded):
    data.sharded = sharded
    return data


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Stream, "an IterableDataset (Stream)"),
        (lambda: [torch.zeros(2)], "an iterable of batches (list)"),
        (lambda: DataLoader(DATA, batch_size=None), "a DataLoader that makes no batches"),
        (lambda: DataLoader(DATA, sampler=Own(DATA)), "a sampler of its own (Own)"),
        (
            lambda: DataLoader(DATA, sampler=WeightedRandomSampler([1.0] * 8, 8)),
            "a sampler of its own (WeightedRandomSampler)",
        ),
        (lambda: type("Mine", (DataLoader,), {})(DATA), "a DataLoader of its own class (Mine)"),
    ],
)
def test_data_that_cannot_be_split_is_refused(make, what):
    with pytest.raises(TaskError) as caught:
        batches_for(0, make())

    assert caught.value.what.startswith(f"train_data gives {what}")
    assert "sharded = True" in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: marked(Stream(), sharded=True),
        lambda: DataLoader(DATA, sampler=marked(Own(DATA), sharded=True)),
        lambda: DataLoader(DATA, sampler=DistributedSampler(DATA, num_replicas=2, rank=0)),
    ],
)
def test_data_that_makes_its_own_parts_is_taken_as_it_is(make):
    batches = batches_for(0, make())

    assert batches.is_sharded
    assert batches.length is None


def test_a_sampler_that_is_the_same_in_all_processes_is_split():
    loaders = [
        DataLoader(DATA, batch_size=4, sampler=marked(Own(DATA), sharded=False)) for _ in range(2)
    ]
    parts = [numbers(batches_for(rank, loader)) for rank, loader in enumerate(loaders)]

    assert parts == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
