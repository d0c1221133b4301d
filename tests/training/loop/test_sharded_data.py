"""Data that gives each process a part of its own, and a frozen giant, in real runs of two."""

import json

import pytest
import torch
from rank_cases import rows_of
from support import start_command, write_experiment

from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.errors import TaskError
from pymodules_core.training.loop.sharded_data import lockstep

NET = """
    from torch import nn

    def build():
        net = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(net.weight, 1.0)
        return net
"""
# Of five batches the second process has four; of three evaluation batches it has two.
STREAM_TASK = """
    import torch
    from torch.optim import SGD
    from torch.utils.data import IterableDataset


    class Stream(IterableDataset):
        sharded = True

        def __init__(self, batches):
            self.batches = batches

        def __iter__(self):
            return iter(torch.full((4, 1), value, dtype=torch.float64) for value in self.batches)


    def train_data(rank, world_size):
        return torch.utils.data.DataLoader(
            Stream([[1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0]][rank]), batch_size=None
        )


    def eval_data(rank):
        stream = Stream([[1.0, 2.0, 3.0], [1.0, 6.0]][rank])
        return torch.utils.data.DataLoader(stream, batch_size=None)


    def optimizers(module_pool):
        return SGD(module_pool.net.parameters(), lr=0.01)


    def train_step(module_pool, batch):
        return module_pool.net(batch).mean()


    def eval_step(module_pool, batch):
        return {"loss": batch.mean()}
"""


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    home = tmp_path_factory.mktemp("streams")
    path = write_experiment(
        home, "streams", modules={"net": NET}, task=STREAM_TASK, toml="[train]\nepochs = 1\n"
    )
    return path, start_command("train", str(path), "--nproc", "2")


def test_an_epoch_ends_with_the_first_process_that_has_no_batch_left(streamed):
    path, result = streamed

    assert result.returncode == 0, result.stderr
    train = next(row for row in rows_of(path) if row["phase"] == "train")
    weight = torch.load(path / "data/module_ckps/last/net.pt", weights_only=True)["weight"]
    # Four steps, of means 3, 3, 3 and 3 over both processes: the gradient is the input.
    assert train["step"] == 4
    assert weight.item() == pytest.approx(1.0 - 0.01 * 4 * 3.0)
    assert (
        "train_data has more batches in some processes than in others: epoch 1 ends after 4"
        in result.stderr
    )


def test_evaluation_meets_the_samples_of_all_processes(streamed):
    path, _ = streamed
    means = [row["metrics"]["loss"] for row in rows_of(path) if row["phase"] == "eval"]

    assert means == [pytest.approx((1 + 2 + 3 + 1 + 6) / 5)] * 2


def test_equal_batches_in_all_processes_are_reported(streamed):
    _, result = streamed

    told = "eval_data gives all 2 processes the same first batch"
    assert result.stderr.count(told) == 1
    assert "train_data gives all 2 processes" not in result.stderr


class OneOfTwo:
    """A process whose only neighbour still has a batch."""

    size = 2

    def all_reduce_sum(self, numbers):
        return [numbers[0], numbers[1] + 4]


def test_evaluation_by_modules_in_parts_that_one_process_ends_first_is_refused_with_ways_out():
    batches = lockstep(
        iter([]),
        None,
        OneOfTwo(),
        epoch=1,
        name="eval_data",
        is_training=False,
        has_shards=True,
        compares=False,
    )

    with pytest.raises(TaskError) as caught:
        next(batches)

    assert str(caught.value) == (
        "eval_data has more batches in some processes than in others, and modules of parallel "
        '"fsdp" compute in all at once\n'
        '  fix: give each process as many batches, or let the modules be parallel = "ddp"'
    )


FROZEN = """
    from torch import nn

    module = nn.Linear(1, 1, bias=False).double()
    settings = {"frozen": True, "parallel": "fsdp"}
"""
FROZEN_TASK = """
    import torch
    from torch.optim import SGD
    from torch.utils.data import TensorDataset


    def train_data():
        return TensorDataset(torch.ones(8, 1, dtype=torch.float64))


    eval_data = train_data


    def optimizers(module_pool):
        return SGD(module_pool.net.parameters(), lr=0.01)


    def train_step(module_pool, batch):
        return (module_pool.net(batch[0]) - module_pool.frozen(batch[0])).square().mean()


    def eval_step(module_pool, batch):
        return {"loss": train_step(module_pool, batch)}
"""


def test_a_frozen_module_in_parts_trains_evaluates_and_is_saved(tmp_path):
    path = write_experiment(
        tmp_path,
        "frozen",
        modules={"net": NET, "frozen": FROZEN},
        task=FROZEN_TASK,
        toml="[train]\nepochs = 2\nbatch_size = 4\n[checkpoints]\nevery_n_steps = 1\n",
    )

    result = start_command("train", str(path), "--nproc", "2")

    assert result.returncode == 0, result.stderr
    assert [row["phase"] for row in rows_of(path)] == ["eval", "train", "eval", "train", "eval"]
    assert (path / "data" / "module_ckps" / "frzn" / "frozen.pt").is_file()


GIANT_BYTES = 1 << 30
GIANT = f"""
    import torch
    from torch import nn

    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros({GIANT_BYTES} // 4))
    settings = {{"frozen": True}}
"""
GIANT_TASK = """
    import json
    import resource

    import torch
    from torch.optim import SGD
    from torch.utils.data import TensorDataset


    def train_data():
        return TensorDataset(torch.ones(8, 1, dtype=torch.float64))


    def optimizers(module_pool):
        return SGD(module_pool.net.parameters(), lr=0.01)


    def train_step(module_pool, batch):
        return module_pool.net(batch[0]).mean() + 0 * module_pool.giant.weight[0]


    def run_finished(run):
        giant = run.module_pool.giant
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        (run.data_dir / f"rank_{run.rank}.json").write_text(
            json.dumps({"class": type(giant).__name__, "is_plain": type(giant) is torch.nn.Module,
                        "peak": peak})
        )
"""


@pytest.mark.long
def test_a_frozen_giant_is_neither_wrapped_nor_gathered_nor_saved_again(tmp_path):
    path = write_experiment(
        tmp_path,
        "giant",
        modules={"net": NET, "giant": GIANT},
        task=GIANT_TASK,
        toml="[train]\nepochs = 3\nbatch_size = 4\n[checkpoints]\nevery_n_steps = 1\n",
    )
    result = start_command("train", str(path), "--nproc", "2")

    assert result.returncode == 0, result.stderr
    found = [json.loads((path / f"data/rank_{rank}.json").read_text()) for rank in (0, 1)]
    assert all(one["is_plain"] for one in found)
    # What does not save it has it once, beside torch itself.
    assert found[1]["peak"] < 1.6 * GIANT_BYTES
    records = readable_records(Layout(path / "data" / "module_ckps"))
    large = {
        digest
        for record in records
        for digest, stored in record.objects.items()
        if stored.size_bytes > GIANT_BYTES // 2
    }
    assert large == {records[0].pools["frzn"].modules["giant"]}
    assert records[0].pools["frzn"].commit == 1
