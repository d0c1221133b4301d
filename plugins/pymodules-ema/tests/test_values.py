"""The average is the one that a person would compute by hand."""

import pytest
import torch

from pymodules_core import Trainer

# Settings, and the decay they mean at the t-th update of the source, counted from 1.
CASES = {
    "plain": ("decay = 0.9\nwarmup = false", lambda _: 0.9),
    "warm-up": ("decay = 0.5", lambda t: min(0.5, t / (9 + t))),
    "every second": (
        "decay = 0.9\nwarmup = false\nupdate_every_n_steps = 2",
        lambda t: None if t % 2 else 0.9,
    ),
    "warm-up, every second": (
        "update_every_n_steps = 2",
        lambda t: None if t % 2 else (t // 2) / (9 + t // 2),
    ),
    "later": ("decay = 0.9\nwarmup = false\nstart_step = 3", lambda t: 0.0 if t <= 3 else 0.9),
    "later, warm-up": ("start_step = 3", lambda t: 0.0 if t <= 3 else (t - 3) / (9 + t - 3)),
}


def average_by_hand(initial, trail, optimizer, decay_at, *, averages_buffers=False):
    """Average states after each update by ``optimizer``, in plain arithmetic."""
    average = {key: value.clone() for key, value in initial.items()}
    updates = 0
    for _, stepped, state in trail:
        if optimizer not in stepped:
            continue
        updates += 1
        decay = decay_at(updates)
        if decay is None:
            continue
        for key, value in state.items():
            is_averaged = value.is_floating_point() and (averages_buffers or "running" not in key)
            average[key] = decay * average[key] + (1 - decay) * value if is_averaged else value
    return average, updates


def assert_close(state, expected):
    assert list(state) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_average_follows_the_settings(write, load, case):
    settings, decay_at = CASES[case]
    path = write(settings=f'[plugins.settings.ema]\nmodules = ["net"]\n{settings}')

    Trainer(path).fit()

    trail = torch.load(path / "data" / "trail.pt", weights_only=True)
    expected, updates = average_by_hand(load(path, "net", "init"), trail, "main", decay_at)
    assert updates == 9
    assert_close(load(path, "net_ema"), expected)
    assert not torch.equal(load(path, "net_ema")["0.weight"], load(path, "net")["0.weight"])


def test_only_steps_that_update_count_where_gradients_accumulate(write, load):
    path = write(
        settings="""
        [optimizers.main]
        accumulate = 2
        [plugins.settings.ema]
        modules = ["net"]
        decay = 0.9
        warmup = false
        """
    )

    Trainer(path).fit()

    trail = torch.load(path / "data" / "trail.pt", weights_only=True)
    expected, updates = average_by_hand(load(path, "net", "init"), trail, "main", lambda _: 0.9)
    assert updates == 6  # three batches an epoch: a window of two, and one that its end cuts short
    assert_close(load(path, "net_ema"), expected)


def test_buffers_are_averaged_where_settings_say_so(write, load):
    path = write(
        settings="""
        [plugins.settings.ema]
        modules = ["net"]
        decay = 0.9
        warmup = false
        buffers = "average"
        """
    )

    Trainer(path).fit()

    trail = torch.load(path / "data" / "trail.pt", weights_only=True)
    expected, _ = average_by_hand(
        load(path, "net", "init"), trail, "main", lambda _: 0.9, averages_buffers=True
    )
    assert_close(load(path, "net_ema"), expected)
    assert load(path, "net_ema")["1.num_batches_tracked"] == 9


GAN_TASK = """
import copy

import torch
from torch.nn.functional import softplus
from torch.optim import Adam

TRAIL = []


def train_data():
    return list(torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(0)))


def optimizers(module_pool):
    return {
        "d": Adam(module_pool.discriminator.parameters(), lr=1e-2),
        "g": Adam(module_pool.generator.parameters(), lr=1e-2),
    }


def train_step(module_pool, batch, run):
    fakes = module_pool.generator(torch.randn(8, 2))
    with run.optimize("d") as step:
        step.loss = softplus(-module_pool.discriminator(batch)).mean()
        step.loss = step.loss + softplus(module_pool.discriminator(fakes.detach())).mean()
    if run.step % 2:  # the generator learns in every second step
        with run.optimize("g") as step:
            step.loss = softplus(-module_pool.discriminator(fakes)).mean()


def train_step_finished(run, stepped):
    state = copy.deepcopy(run.module_pool.generator.state_dict())
    TRAIL.append((run.step, sorted(stepped), state))


def run_finished(run):
    torch.save(TRAIL, run.data_dir / "trail.pt")
"""


def test_a_generator_is_averaged_when_its_own_optimizer_steps(write, load):
    path = write(
        "gan",
        modules={
            "generator": "from torch import nn\nmodule = nn.Linear(2, 4)\nsettings = {}",
            "discriminator": "from torch import nn\nmodule = nn.Linear(4, 1)\nsettings = {}",
        },
        task=GAN_TASK,
        settings='[plugins.settings.ema]\nmodules = ["generator"]\ndecay = 0.8\nwarmup = false',
    )

    Trainer(path).fit()

    trail = torch.load(path / "data" / "trail.pt", weights_only=True)
    expected, updates = average_by_hand(load(path, "generator", "init"), trail, "g", lambda _: 0.8)
    assert (len(trail), updates) == (18, 9)
    assert_close(load(path, "generator_ema"), expected)
    assert not (path / "data" / "module_ckps" / "last" / "discriminator_ema.pt").exists()


DIGITS_TASK = """
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.data import TensorDataset


def dataset(part):
    digits = load_digits()
    images = torch.tensor(digits.data[part], dtype=torch.float32) / 16
    return TensorDataset(images, torch.tensor(digits.target[part]))


def train_data():
    return dataset(slice(0, 1200))


def eval_data():
    return dataset(slice(1200, None))


def optimizers(module_pool):
    return SGD(module_pool.net.parameters(), lr=2.0)  # too fast: the weights jump around the best


def train_step(module_pool, batch):
    images, labels = batch
    return cross_entropy(module_pool.net(images), labels)


def eval_step(module_pool, batch):
    images, labels = batch
    return {
        "loss": cross_entropy(module_pool.net(images), labels),
        "ema_loss": cross_entropy(module_pool.net_ema(images), labels),
        "is_training": float(module_pool.net_ema.training),
    }
"""


def test_the_average_is_better_where_the_weights_jump(write):
    pytest.importorskip("sklearn")
    path = write(
        "digits",
        modules={"net": "from torch import nn\nmodule = nn.Linear(64, 10)\nsettings = {}"},
        task=DIGITS_TASK,
        settings='[plugins.settings.ema]\nmodules = ["net"]\ndecay = 0.99',
    )

    metrics = Trainer(path).fit().metrics

    assert metrics["ema_loss"] < 0.9 * metrics["loss"]
    assert metrics["is_training"] == 0
