"""A frozen module that changes during a run."""

import pytest
import torch
from support import write_experiment
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, Trainer
from pymodules_core.errors import FrozenModuleError


class Counting(nn.Module):
    """Has extra state."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def get_extra_state(self):
        return {"count": self.count}

    def set_extra_state(self, state):
        self.count = state["count"]


def make_pool():
    return ModulePool.from_modules(
        {"net": nn.Linear(2, 2), "cold": nn.BatchNorm1d(2), "odd": Counting()},
        settings={"cold": {"frozen": True}, "odd": {"frozen": True}},
    )


def write_to_weight(pool):
    pool.cold.weight.data[1] += 1e-6


def write_to_buffer(pool):
    pool.cold.train()(torch.randn(4, 2))


def write_to_extra_state(pool):
    pool.odd.count = 3


def replace_a_tensor(pool):
    pool.cold.bias = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)


@pytest.mark.parametrize(
    ("change", "module_name", "tensors"),
    [
        (write_to_weight, "cold", "weight"),
        (write_to_buffer, "cold", "running_mean, running_var, num_batches_tracked"),
        (write_to_extra_state, "odd", "_extra_state"),
        (replace_a_tensor, "cold", "bias"),
    ],
)
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_frozen_module_that_changes_is_named_with_its_tensors(
    tmp_path, change, module_name, tensors, asynchronous
):
    pool = make_pool()
    checkpoints = CheckpointManager(tmp_path, pool, asynchronous=asynchronous)
    checkpoints.start()
    pool.net.weight.data.fill_(1.0)
    checkpoints.commit("last", epoch=1)
    # The watch reads live tensors: it could see half of the change, and name half of it.
    checkpoints.wait()
    change(pool)

    with pytest.raises(FrozenModuleError) as caught:  # noqa: PT012  told now or at the next call
        checkpoints.commit("last", "epoch_2", epoch=2)
        checkpoints.wait()

    assert str(caught.value) == (
        f"module {module_name!r} is frozen and has changed since the run started: {tensors}\n"
        "  fix: find what writes to it (an optimizer, an EMA, a copy of weights), or set "
        '"frozen": False'
    )
    assert checkpoints.pools() == ["frzn", "init", "last"]
    with pytest.raises(FrozenModuleError):  # noqa: PT012
        checkpoints.commit("last", epoch=2)
        checkpoints.close()
    checkpoints.close()


def test_a_trained_module_may_change_and_a_frozen_one_may_be_used(tmp_path):
    pool = make_pool()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()
        for epoch in (1, 2):
            pool.net.weight.data.fill_(epoch)
            pool.cold(torch.randn(4, 2))
            checkpoints.commit("last", f"epoch_{epoch}", epoch=epoch)

    assert (tmp_path / "epoch_2" / "net.pt").exists()


TASK_THAT_TRAINS_THE_TEACHER = """
import torch
from torch.nn.functional import mse_loss
from torch.optim import SGD


def train_data():
    return [torch.ones(2, 4)]


def optimizers(module_pool):
    return SGD(module_pool.net.parameters(), lr=0.1)


def train_step(module_pool, batch):
    module_pool.teacher.weight.data.mul_(0.9)
    return mse_loss(module_pool.net(batch), module_pool.teacher(batch))
"""


def test_a_run_that_writes_to_its_teacher_fails_and_says_so(home):
    linear = "from torch import nn\nmodule = nn.Linear(4, 1)\nsettings = {}\n"
    frozen = linear.replace("{}", '{"frozen": True}')
    path = write_experiment(
        home, modules={"net": linear, "teacher": frozen}, task=TASK_THAT_TRAINS_THE_TEACHER
    )

    with pytest.raises(FrozenModuleError, match=r"^module 'teacher' is frozen and has changed"):
        Trainer(path, load_installed=False).fit()

    assert not (path / "data" / "module_ckps" / "epoch_1").exists()
