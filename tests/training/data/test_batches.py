"""Batches: what a task may give, and in which order it comes."""

import tracemalloc
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pymodules_core.errors import SettingsError, TaskError
from pymodules_core.rng import derive_seed
from pymodules_core.settings import TrainSettings
from pymodules_core.training.data import Batches, EpochSampler
from pymodules_core.training.task.device import batch_length, choose_device, move_batch

NUMBERS = TensorDataset(torch.arange(10))
Pair = namedtuple("Pair", ["inputs", "targets"])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))


def batches_of(data, phase="train", **settings):
    return Batches(data, phase=phase, settings=TrainSettings(**settings), pin_memory=False)


def flat(batches, epoch):
    return [int(x) for batch in batches.epoch(epoch) for x in torch.as_tensor(batch[0]).reshape(-1)]


def test_the_order_of_training_is_a_function_of_seed_and_epoch():
    batches = batches_of(NUMBERS, batch_size=3)

    first = flat(batches, 1)
    torch.rand(5)

    assert sorted(first) == list(range(10))
    assert flat(batches, 1) == first
    assert flat(batches_of(NUMBERS, batch_size=5), 1) == first
    assert flat(batches, 2) != first
    assert flat(batches_of(NUMBERS, batch_size=3, seed=1), 1) != first


def test_evaluation_is_never_shuffled():
    assert flat(batches_of(NUMBERS, "eval", batch_size=4), 3) == list(range(10))


@pytest.mark.parametrize("phase", ["train", "eval"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_iterating_draws_nothing_from_the_global_stream(phase, shuffle):
    for data in (NUMBERS, DataLoader(NUMBERS, batch_size=2, shuffle=shuffle)):
        batches = batches_of(data, phase)
        before = torch.get_rng_state()

        flat(batches, 1)

        assert torch.equal(torch.get_rng_state(), before)


def test_a_users_loader_keeps_its_batches_and_shuffles_by_epoch():
    batches = batches_of(DataLoader(NUMBERS, batch_size=4, shuffle=True))

    assert batches.length == 3
    assert flat(batches, 1) == flat(batches, 1)
    assert flat(batches, 1) != flat(batches, 2)


def test_a_users_generator_is_left_alone():
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(NUMBERS, shuffle=True, generator=generator)

    batches_of(loader)

    assert loader.generator is generator


def test_an_iterable_dataset_is_batched_and_knows_no_length():
    batches = batches_of(Stream(), batch_size=2)

    assert batches.length is None
    assert [len(batch) for batch in batches.epoch(1)] == [2, 2, 1]


def test_any_other_iterable_gives_batches_as_they_are():
    data = [torch.zeros(2), torch.zeros(3)]

    batches = batches_of(data)

    assert batches.length == 2
    assert list(batches.epoch(1)) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            None,
            "train_data returns None, expected a Dataset, a DataLoader or an iterable of batches\n"
            "  fix: return torch.utils.data.TensorDataset(inputs, targets), or what you have",
        ),
        (
            3,
            "train_data returns int, expected a Dataset, a DataLoader or an iterable of batches\n"
            "  fix: return torch.utils.data.TensorDataset(inputs, targets), or what you have",
        ),
        (
            [],
            "train_data returns list without a sample\n"
            "  fix: look at the path or the filter that its samples come through",
        ),
        (
            TensorDataset(torch.zeros(0, 2)),
            "train_data returns TensorDataset without a sample\n"
            "  fix: look at the path or the filter that its samples come through",
        ),
        (
            DataLoader(NUMBERS, batch_size=80, drop_last=True),
            "train_data returns DataLoader, which drops its only batch: it has 10 of 80 samples\n"
            "  fix: a batch_size of 10 at most, or drop_last=False",
        ),
        (
            DataLoader(TensorDataset(torch.zeros(0, 2)), batch_size=80, drop_last=True),
            "train_data returns DataLoader without a sample\n"
            "  fix: look at the path or the filter that its samples come through",
        ),
        (
            iter([1, 2]),
            "train_data returns an iterator, which is exhausted after one epoch of 10\n"
            "  fix: return list(...), or an object whose __iter__ starts again; a Dataset, a "
            "DataLoader or an iterable of batches",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(data, message):
    with pytest.raises(TaskError) as caught:
        batches_of(data)

    assert str(caught.value) == message


def test_a_sampler_has_the_length_of_its_data():
    assert len(EpochSampler(7, seed=0)) == 7


def test_batches_move_with_their_structure():
    batch = {
        "pair": Pair(torch.zeros(2), [torch.ones(1)]),
        "names": ("a", "b"),
        "count": 3,
    }

    moved = move_batch(batch, torch.device("meta"))

    assert isinstance(moved["pair"], Pair)
    assert moved["pair"].inputs.device.type == "meta"
    assert moved["pair"].targets[0].device.type == "meta"
    assert (moved["names"], moved["count"]) == (("a", "b"), 3)


@pytest.mark.parametrize(
    ("batch", "length"),
    [
        (torch.zeros(4, 2), 4),
        ((torch.zeros(3), torch.zeros(5)), 3),
        ({"x": [torch.zeros(6)]}, 6),
        ({"id": "abc", "x": torch.zeros(5)}, 5),
        ((3, torch.zeros(5)), 5),
        ((None, torch.tensor(1.0), torch.zeros(5)), 5),
        ({"scale": np.float32(2.0), "x": np.zeros((7, 2))}, 7),
        ((["a", "b"], torch.zeros(4)), 4),
        (["a", "b"], 2),
        ((["a", "b", "c"], [1, 2, 3]), 3),
        ({"n": 3, "text": ["a", "b"]}, 2),
        (torch.tensor(1.0), 1),
        ("abc", 1),
        ({}, 1),
        ((), 1),
        (object(), 1),
    ],
)
def test_the_length_of_a_batch_is_that_of_its_first_array_or_else_list(batch, length):
    assert batch_length(batch) == length


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gpu",
            "train.device: 'gpu' is not a device; there are: auto, cpu, cuda, cuda:<index>\n"
            "  closest match: cuda\n"
            '  fix: device = "auto" takes what there is',
        ),
        (
            "cuda:99",
            f"train.device: 'cuda:99' is not on this machine, which has "
            f"{torch.cuda.device_count()} CUDA devices\n"
            '  fix: device = "auto" takes what there is',
        ),
    ],
)
def test_a_device_that_is_not_there_is_refused(name, message):
    with pytest.raises(SettingsError) as caught:
        choose_device(name)

    assert str(caught.value) == message


def test_auto_takes_what_there_is():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


def test_the_order_of_an_epoch_is_kept_as_one_tensor():
    sampler = EpochSampler(200_000, seed=3)
    sampler.epoch = 2
    generator = torch.Generator().manual_seed(derive_seed(3, "order", 2))
    expected = torch.randperm(200_000, generator=generator)

    tracemalloc.start()
    indices = iter(sampler)
    first = [next(indices) for _ in range(5_000)]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert first == expected[:5_000].tolist()
    assert [*indices] == expected[5_000:].tolist()
    assert peak_bytes < 1_000_000
