"""Several optimizers, accumulation, clipping and schedules, beside loops written by hand."""

from collections.abc import Mapping

import pytest
import torch
from support import TINY_TASK, write_experiment
from torch import nn
from torch.optim import SGD

from pymodules_core import ModulePool, Processes, Trainer
from pymodules_core.errors import TaskError
from pymodules_core.settings import OptimizerSettings
from pymodules_core.training.optim.block import OptimizeBlock, manage_optimizers
from pymodules_core.training.optim.precision import Precision
from pymodules_core.training.parallel import SharedModules
from pymodules_core.training.run_output.console import SilentPrinter

FULL = Precision(device_type="cpu")


def make_units_alone(optimizers, modules, **more):
    alone = Processes.alone()
    pool = ModulePool.from_modules(modules)
    shared = SharedModules(pool, alone)
    return manage_optimizers(optimizers, pool=pool, processes=alone, modules=shared, **more)


def units_of(
    modules: Mapping[str, nn.Module],
    settings: OptimizerSettings | None = None,
    *,
    lr: float = 0.1,
    schedulers=None,
    skip_nonfinite: bool = False,
):
    optimizers = {name: SGD(module.parameters(), lr) for name, module in modules.items()}
    return make_units_alone(
        optimizers,
        modules,
        schedulers={n: schedulers(o) for n, o in optimizers.items()} if schedulers else {},
        settings=dict.fromkeys(modules, settings or OptimizerSettings()),
        precision=FULL,
        skip_nonfinite=skip_nonfinite,
    )


def gan() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(3, 4), nn.Linear(4, 1)


def gan_losses(generator, discriminator, noise, real):
    fake = generator(noise)
    d_loss = (discriminator(fake.detach()) - discriminator(real)).square().mean()
    return fake, d_loss


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_gan_equals_a_loop_written_by_hand(accumulate, clip_norm):
    batches = [(torch.randn(8, 3), torch.randn(8, 4)) for _ in range(8)]
    generator, discriminator = gan()
    units = units_of(
        {"g": generator, "d": discriminator},
        OptimizerSettings(accumulate=accumulate, clip_norm=clip_norm),
    )
    stepped: set[str] = set()
    for noise, real in batches:
        fake, d_loss = gan_losses(generator, discriminator, noise, real)
        with OptimizeBlock(units["d"], stepped) as step:
            step.loss = d_loss
        with OptimizeBlock(units["g"], stepped) as step:
            step.loss = -discriminator(fake).mean()

    hand_generator, hand_discriminator = gan()
    g, d = SGD(hand_generator.parameters(), 0.1), SGD(hand_discriminator.parameters(), 0.1)
    for index, (noise, real) in enumerate(batches, start=1):
        fake, d_loss = gan_losses(hand_generator, hand_discriminator, noise, real)
        for optimizer, module, loss_of in (
            (d, hand_discriminator, lambda: d_loss),  # noqa: B023  called at once
            (g, hand_generator, lambda: -hand_discriminator(fake).mean()),  # noqa: B023
        ):
            own = list(module.parameters())
            gradients = torch.autograd.grad(loss_of() / accumulate, own)
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            if index % accumulate == 0:
                if clip_norm is not None:
                    nn.utils.clip_grad_norm_(own, clip_norm)
                optimizer.step()
                optimizer.zero_grad()

    for ours, theirs in ((generator, hand_generator), (discriminator, hand_discriminator)):
        for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected)


def test_a_block_that_raises_updates_nothing():
    generator, discriminator = gan()
    before = generator.weight.clone()
    units = units_of({"g": generator, "d": discriminator})

    def step_that_raises():
        with OptimizeBlock(units["g"], set()) as step:
            step.loss = discriminator(generator(torch.randn(2, 3))).mean()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        step_that_raises()

    assert torch.equal(generator.weight, before)


def test_several_losses_in_one_block_add_up():
    generator, discriminator = gan()
    units = units_of({"g": generator, "d": discriminator}, lr=1.0)
    before = generator.bias.clone()

    with OptimizeBlock(units["g"], set()) as step:
        step.backward(generator.bias.sum())
        step.backward(2 * generator.bias.sum())

    torch.testing.assert_close(generator.bias, before - 3)


def test_a_block_with_one_loss_to_skip_updates_nothing():
    generator, discriminator = gan()
    units = units_of({"g": generator, "d": discriminator}, lr=1.0, skip_nonfinite=True)
    before = generator.bias.clone()
    stepped: set[str] = set()

    with OptimizeBlock(units["g"], stepped) as step:
        step.backward(generator.bias.sum())
        step.backward(generator.bias.sum() * float("nan"))

    assert torch.equal(generator.bias, before)
    assert generator.bias.grad is None
    assert (stepped, step.is_skipped, units["g"].skipped_steps) == (set(), True, 1)


def test_a_block_without_a_loss_is_an_error():
    generator, discriminator = gan()
    units = units_of({"g": generator, "d": discriminator})

    with (
        pytest.raises(TaskError, match=r"run.optimize\('g'\) ended without a loss"),
        OptimizeBlock(units["g"], set()),
    ):
        pass


def test_accumulation_equals_one_large_batch():
    torch.manual_seed(0)
    inputs, targets = torch.randn(32, 4), torch.randn(32, 1)
    small, large = nn.Linear(4, 1), nn.Linear(4, 1)
    large.load_state_dict(small.state_dict())
    unit = units_of({"m": small}, OptimizerSettings(accumulate=4))["m"]
    whole = units_of({"m": large})["m"]

    updates = []
    for part in range(4):
        rows = slice(part * 8, part * 8 + 8)
        unit.backward((small(inputs[rows]) - targets[rows]).square().mean())
        updates.append(unit.close_micro_step())
    whole.backward((large(inputs) - targets).square().mean())
    whole.close_micro_step()

    assert updates == [False, False, False, True]
    torch.testing.assert_close(small.weight, large.weight)


def test_a_window_that_the_epoch_cuts_short_steps_at_its_own_mean():
    torch.manual_seed(0)
    module, expected = nn.Linear(2, 1), nn.Linear(2, 1)
    expected.load_state_dict(module.state_dict())
    unit = units_of({"m": module}, OptimizerSettings(accumulate=4))["m"]
    plain = units_of({"m": expected})["m"]
    inputs = torch.randn(6, 2)

    for part in (inputs[:3], inputs[3:]):
        unit.backward(module(part).square().mean())
        unit.close_micro_step()
    unit.flush()
    plain.backward(expected(inputs).square().mean())
    plain.close_micro_step()

    torch.testing.assert_close(module.weight, expected.weight)


def test_clip_value_bounds_every_gradient():
    module = nn.Linear(1, 1)
    unit = units_of({"m": module}, OptimizerSettings(clip_value=0.5), lr=1.0)["m"]
    before = module.bias.clone()

    unit.backward(100 * module.bias.sum())
    unit.close_micro_step()

    torch.testing.assert_close(module.bias, before - 0.5)


@pytest.mark.parametrize(("schedule", "rates"), [("step", [0.5, 0.25]), ("epoch", [1.0, 1.0])])
def test_a_schedule_follows_updates_or_epochs(schedule, rates):
    module = nn.Linear(1, 1)
    unit = units_of(
        {"m": module},
        OptimizerSettings(schedule=schedule),
        lr=1.0,
        schedulers=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.5),
    )["m"]

    seen = []
    for _ in rates:
        unit.backward(module.bias.sum())
        unit.close_micro_step()
        seen.append(unit.learning_rate)
    unit.end_epoch(monitored=1.0)

    assert seen == rates
    assert unit.learning_rate == (0.25 if schedule == "step" else 0.5)


def test_reduce_on_plateau_gets_the_monitored_metric():
    module = nn.Linear(1, 1)
    unit = units_of(
        {"m": module},
        lr=1.0,
        schedulers=lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.1),
    )["m"]

    for value in (1.0, 1.0, 1.0):
        unit.end_epoch(monitored=value)

    assert unit.learning_rate == pytest.approx(0.1)


def test_a_gan_task_trains_both_networks_and_logs_their_losses(tmp_path):
    task = TINY_TASK.replace(
        "return SGD(module_pool.net.parameters(), lr=0.1)",
        "return {n: SGD(module_pool[n].parameters(), lr=0.1) for n in ('g', 'd')}",
    )
    task = task[: task.index("def train_step")] + (
        "def train_step(module_pool, batch, run):\n"
        "    fake = module_pool.g(batch[0])\n"
        "    with run.optimize('d') as step:\n"
        "        step.loss = module_pool.d(fake.detach()).square().mean()\n"
        "    with run.optimize('g') as step:\n"
        "        step.loss = (module_pool.d(fake) - 1).square().mean()\n"
        "def eval_step(module_pool, batch):\n"
        "    return {'loss': module_pool.d(module_pool.g(batch[0])).mean()}\n"
    )
    linear = "from torch import nn\nmodule = nn.Linear(4, 4)\nsettings = {}\n"
    path = write_experiment(tmp_path, modules={"g": linear, "d": linear}, task=task)

    Trainer(path, reporter=SilentPrinter()).fit()

    for name in ("g", "d"):
        pools = path / "data" / "module_ckps"
        init, last = (
            torch.load(pools / p / f"{name}.pt", weights_only=True)["weight"]
            for p in ("init", "last")
        )
        assert not torch.equal(init, last)
    log = (path / "data" / "metrics.jsonl").read_text()
    assert '"loss_d": ' in log
    assert '"loss_g": ' in log


def test_a_second_block_of_a_step_sees_the_weights_that_the_first_made():
    module = nn.Linear(2, 1)
    bf16 = Precision(device_type="cpu", dtype=torch.bfloat16)
    optimizer = SGD(module.parameters(), 1.0)
    unit = make_units_alone(
        {"m": optimizer},
        {"m": module},
        schedulers={},
        settings={},
        precision=bf16,
        skip_nonfinite=False,
    )["m"]
    inputs = torch.ones(1, 2)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        with OptimizeBlock(unit, set()) as step:
            step.loss = module(inputs).sum()
        after = module(inputs)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(after, module(inputs))
