"""Data that a run resumes from in mid-epoch, and random numbers that no worker count changes."""

import logging
import random
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from pymodules_core.settings import TrainSettings
from pymodules_core.training.data import Batches

NUMBERS = TensorDataset(torch.arange(20))


class Counting(Dataset):
    """Remembers which items were read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.read.append(index)
        return index


class Noise(Dataset):
    """Items that draw from every stream."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return index + torch.rand(()) + random.random() + np.random.rand()


class NoiseStream(IterableDataset):
    def __iter__(self):
        for _ in range(20):
            yield torch.rand(()) + random.random() + np.random.rand()


class Growing(Sampler):
    """A sampler of the user's own that draws as it goes."""

    def __iter__(self):
        for _ in range(12):
            yield random.randrange(20)

    def __len__(self):
        return 12


class Opened(Dataset):
    """A dataset whose file is opened in the worker."""

    file = None

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.file[index]


def open_file(_):
    get_worker_info().dataset.file = [10, 11, 12, 13]


class StatefulStream(IterableDataset):
    """Keeps its place itself, in the process it is read in."""

    place = 0

    def __iter__(self):
        while self.place < 20:
            self.place += 1
            yield self.place + torch.rand(())
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Doubling(DataLoader):
    """A loader of the user's own class."""

    def __iter__(self):
        return (2 * batch for batch in super().__iter__())


class StatefulData:
    """Data that keeps its place itself."""

    def __init__(self):
        self.place = 0

    def __iter__(self):
        while self.place < 6:
            self.place += 1
            yield torch.tensor([self.place]) + torch.rand(())
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def batches_of(data, phase="train", **settings):
    return Batches(
        data, phase=phase, settings=TrainSettings(batch_size=3, **settings), pin_memory=False
    )


def values(batches):
    return [torch.as_tensor(b[0] if isinstance(b, list) else b).tolist() for b in batches]


def loaders():
    weights = torch.arange(1.0, 21.0)
    return {
        "dataset": lambda: NUMBERS,
        "noise": Noise,
        "in order": lambda: DataLoader(Noise(), batch_size=3),
        "shuffled": lambda: DataLoader(Noise(), batch_size=3, shuffle=True, drop_last=True),
        "workers": lambda: DataLoader(Noise(), batch_size=3, shuffle=True, num_workers=1),
        "with a generator": lambda: DataLoader(
            Noise(), batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(3)
        ),
        "replacement": lambda: DataLoader(
            Noise(), batch_size=3, sampler=RandomSampler(range(20), replacement=True)
        ),
        "weighted": lambda: DataLoader(
            Noise(), batch_size=3, sampler=WeightedRandomSampler(weights, 20)
        ),
        "own sampler": lambda: DataLoader(Noise(), batch_size=3, sampler=Growing()),
        "own batches": lambda: DataLoader(
            Noise(), batch_sampler=BatchSampler(Growing(), 3, drop_last=False)
        ),
        "batches of random": lambda: DataLoader(
            Noise(), batch_sampler=BatchSampler(RandomSampler(range(20)), 3, drop_last=False)
        ),
        "batches of a subset": lambda: DataLoader(
            Noise(),
            batch_sampler=BatchSampler(SubsetRandomSampler(range(10)), 3, drop_last=False),
        ),
        "a stream's loader": lambda: DataLoader(NoiseStream(), batch_size=3),
        "a stream in workers": lambda: DataLoader(NoiseStream(), batch_size=3, num_workers=1),
        "a stream in workers that stay": lambda: DataLoader(
            NoiseStream(), batch_size=3, num_workers=1, persistent_workers=True
        ),
        "a stream in workers with a generator": lambda: DataLoader(
            NoiseStream(),
            batch_size=3,
            num_workers=1,
            generator=torch.Generator().manual_seed(5),
        ),
        "own class": lambda: Doubling(Noise(), batch_size=3, shuffle=True),
        "own class with a generator": lambda: Doubling(
            Noise(), batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(5)
        ),
        "a stateful stream": StatefulStream,
        "no batches": lambda: DataLoader(Noise(), batch_size=None, shuffle=True),
        "a stream": NoiseStream,
        "a list": lambda: [torch.tensor([n]) for n in range(7)],
        "stateful": StatefulData,
    }


@pytest.mark.parametrize("phase", ["train", "eval"])
@pytest.mark.parametrize("name", loaders())
def test_an_epoch_continues_after_any_batch(name, phase):
    make = loaders()[name]
    whole = values(batches_of(make(), phase).epoch(2))

    for done in (1, 2, len(whole) - 1, len(whole)):
        first = batches_of(make(), phase)
        begun = list(islice(first.epoch(2), done))
        state = first.state_dict()
        rest = batches_of(make(), phase)
        rest.load_state_dict(state)
        torch.manual_seed(done)  # whatever the training draws
        random.seed(done)

        assert values(begun) == whole[:done]
        if "stateful" not in name or done < len(whole):
            assert values(rest.epoch(2, done=done)) == whole[done:]


@pytest.mark.parametrize("name", ["noise", "shuffled", "weighted", "own sampler", "own batches"])
def test_epochs_differ_and_seeds_differ(name):
    make = loaders()[name]
    first = values(batches_of(make()).epoch(1))

    assert values(batches_of(make()).epoch(1)) == first
    assert values(batches_of(make()).epoch(2)) != first
    assert values(batches_of(make(), seed=1).epoch(1)) != first


@pytest.mark.parametrize("name", ["a stream in workers that stay", "own class with a generator"])
def test_an_epoch_does_not_depend_on_those_before(name):
    make = loaders()[name]
    alone, after = batches_of(make()), batches_of(make())
    values(after.epoch(1))

    assert values(after.epoch(2)) == values(alone.epoch(2))


def test_a_loader_may_be_shared_by_training_and_evaluation():
    loader = Doubling(NoiseStream(), batch_size=3, num_workers=1)
    train, evaluation = batches_of(loader), batches_of(loader, "eval")
    expected = (values(train.epoch(2)), values(evaluation.epoch(2)))

    loader = Doubling(NoiseStream(), batch_size=3, num_workers=1)
    train, evaluation = batches_of(loader), batches_of(loader, "eval")
    values(evaluation.epoch(1))

    assert (values(train.epoch(2)), values(evaluation.epoch(2))) == expected


def test_a_batch_sampler_gives_what_the_sampler_in_it_gives():
    subset = BatchSampler(SubsetRandomSampler(range(10)), 4, drop_last=True)
    weighted = BatchSampler(WeightedRandomSampler([1.0] + [0.0] * 19, 6), 3, drop_last=False)

    of_subset, of_weighted = (
        values(batches_of(DataLoader(NUMBERS, batch_sampler=sampler)).epoch(1))
        for sampler in (subset, weighted)
    )

    assert [len(batch) for batch in of_subset] == [4, 4]
    assert {n for batch in of_subset for n in batch} <= set(range(10))
    assert of_subset != [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert of_weighted == [[0, 0, 0], [0, 0, 0]]


class Arrays(BatchSampler):
    """Batches of indices that are not lists."""

    make = tuple

    def __iter__(self):
        return (self.make(batch) for batch in super().__iter__())


@pytest.mark.parametrize("make", [tuple, np.array, torch.tensor])
@pytest.mark.parametrize("seed_items", ["batch", "sample"])
def test_batches_of_indices_may_be_anything(make, seed_items):
    class Made(Arrays):
        pass

    Made.make = staticmethod(make)

    def epoch(workers):
        sampler = Made(SequentialSampler(range(20)), 3, drop_last=False)
        loader = DataLoader(Noise(), batch_sampler=sampler, num_workers=workers)
        return values(batches_of(loader, seed_items=seed_items).epoch(1))

    alone = epoch(0)

    assert 0 <= alone[0][0] < 3
    assert [len(batch) for batch in alone] == [3] * 6 + [2]
    assert epoch(1) == alone


@pytest.mark.parametrize("workers", [0, 1])
def test_items_may_be_read_in_bulk(workers):
    class Bulk(Noise):
        def __getitem__(self, indices):
            return torch.tensor(indices)

    sampler = BatchSampler(SequentialSampler(range(20)), 8, drop_last=False)
    loader = DataLoader(Bulk(), batch_size=None, sampler=sampler, num_workers=workers)

    assert values(batches_of(loader).epoch(1, done=1)) == [list(range(8, 16)), [16, 17, 18, 19]]


def test_a_sampler_with_a_length_may_have_no_end():
    class Endless(Growing):
        def __iter__(self):
            while True:
                yield random.randrange(20)

    whole = batches_of(DataLoader(NUMBERS, batch_size=3, sampler=Endless())).epoch(1)
    rest = batches_of(DataLoader(NUMBERS, batch_size=3, sampler=Endless())).epoch(1, done=6)

    assert values(islice(whole, 9))[6:] == values(islice(rest, 3))


@pytest.mark.parametrize("phase", ["train", "eval"])
def test_seeds_by_sample_leave_plain_tensors_and_the_training_alone(phase):
    def draws(workers):
        torch.manual_seed(0)
        loader = DataLoader(NUMBERS, batch_size=3, num_workers=workers)
        batches = batches_of(loader, phase, seed_items="sample")
        return [torch.rand(2).tolist() for _ in batches.epoch(1)]

    assert draws(0) == draws(2)
    torch.manual_seed(0)
    expected = torch.rand(7, 2).tolist()
    assert draws(0) == expected


def test_state_that_only_a_worker_knows_is_not_taken_for_the_place(caplog):
    whole = values(batches_of(StatefulStream(), num_workers=1).epoch(1))
    first = batches_of(StatefulStream(), num_workers=1)
    begun = list(islice(first.epoch(1), 2))
    rest = batches_of(StatefulStream(), num_workers=1)
    rest.load_state_dict(first.state_dict())

    assert values(begun) + values(rest.epoch(1, done=2)) == whole
    assert "2 batches of epoch 1 are read and dropped" in caplog.text


def test_batches_before_the_place_are_not_read():
    data = Counting()

    values(batches_of(data, "eval").epoch(1, done=5))

    assert data.read == [15, 16, 17, 18, 19]


@pytest.mark.parametrize("seed_items", ["batch", "sample"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_number_of_workers_changes_no_item(seed_items, shuffle):
    def epoch(workers, *, persistent=False, epochs=(2,)):
        loader = DataLoader(
            Noise(),
            batch_size=3,
            shuffle=shuffle,
            num_workers=workers,
            persistent_workers=persistent,
        )
        batches = batches_of(loader, seed_items=seed_items)
        return [values(batches.epoch(number)) for number in epochs][-1]

    alone = epoch(0)

    assert epoch(2) == alone
    assert epoch(2, persistent=True, epochs=(1, 2)) == alone


def test_seeds_by_sample_survive_another_batch_size():
    def items(size, seed_items):
        loader = DataLoader(Noise(), batch_size=size)
        batches = batches_of(loader, seed_items=seed_items)
        return torch.cat(list(batches.epoch(1))).tolist()

    assert items(3, "sample") == items(5, "sample")
    assert items(3, "batch") != items(5, "batch")


def draws_of_steps(make, workers):
    """Draw between batches, as a train step does."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    batches = batches_of(DataLoader(make(), batch_size=3, num_workers=workers))
    return [(torch.rand(3).tolist(), random.random(), np.random.rand()) for _ in batches.epoch(1)]


@pytest.mark.parametrize("make", [Noise, NoiseStream])
def test_what_a_step_draws_does_not_depend_on_who_read_its_batch(make):
    alone = draws_of_steps(make, 0)

    assert draws_of_steps(make, 1) == alone
    assert len({str(draw) for draw in alone}) == 7


def test_what_a_step_draws_does_not_depend_on_what_items_drew():
    class Silent(Noise):
        def __getitem__(self, index):
            return index

    assert draws_of_steps(Silent, 0) == draws_of_steps(Noise, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_plain_tensors_leave_the_stream_of_the_training_alone(workers):
    torch.manual_seed(0)
    expected = torch.rand(7, 3)
    torch.manual_seed(0)
    batches = batches_of(DataLoader(NUMBERS, batch_size=3, shuffle=True, num_workers=workers))

    drawn = torch.stack([torch.rand(3) for _ in batches.epoch(1)])

    assert torch.equal(drawn, expected)


def test_a_generator_of_the_users_decides_the_order_by_its_seed():
    def order(own_seed, run_seed):
        generator = torch.Generator().manual_seed(own_seed)
        loader = DataLoader(NUMBERS, batch_size=3, shuffle=True, generator=generator)
        return values(batches_of(loader, seed=run_seed).epoch(1))

    assert order(3, 0) == order(3, 1)
    assert order(3, 0) != order(4, 0)


def test_data_without_indices_is_read_up_to_its_place_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        rest = values(batches_of(NoiseStream()).epoch(1, done=3))

    assert len(rest) == 4
    assert caplog.messages == [
        "train_data has neither indices nor state_dict: 3 batches of epoch 1 are read and dropped, "
        "to resume after them"
    ]


def test_a_list_is_not_a_stream(caplog):
    values(batches_of([torch.zeros(1)] * 4).epoch(1, done=3))

    assert caplog.messages == []


def test_a_worker_init_function_reaches_the_dataset_itself():
    loader = DataLoader(Opened(), batch_size=2, num_workers=1, worker_init_fn=open_file)

    assert values(batches_of(loader, "eval").epoch(1)) == [[10, 11], [12, 13]]


def test_the_loader_that_is_made_is_like_the_users():
    loader = DataLoader(
        NUMBERS, batch_size=7, drop_last=True, collate_fn=len, timeout=0, pin_memory=False
    )

    batches = batches_of(loader, "eval")

    assert batches.length == 2
    assert list(batches.epoch(1)) == [7, 7]


def test_a_subclass_of_the_loader_stays_what_it_is():
    batches = batches_of(Doubling(range(20), batch_size=10, shuffle=True))

    first = torch.cat(list(batches.epoch(1)))
    assert sorted(first.tolist()) == list(range(0, 40, 2))
    assert torch.equal(torch.cat(list(batches.epoch(1))), first)
    assert torch.equal(torch.cat(list(batches.epoch(1, done=1))), first[10:])


def test_set_epoch_is_called_on_samplers_that_have_it():
    class Shifted(SequentialSampler):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter([self.epoch, self.epoch + 1])

    loader = DataLoader(NUMBERS, batch_size=2, sampler=Shifted(range(2)))

    assert values(batches_of(loader).epoch(5)) == [[5, 6]]


def test_parts_of_tensors_are_read_without_a_stream_of_their_own():
    data = torch.utils.data.ConcatDataset([Subset(NUMBERS, [1, 2]), NUMBERS])

    assert len(values(batches_of(data).epoch(1))) == 8
