"""What one ``run.optimize`` block computes, another may train through."""

import pytest
import torch
from support import write_experiment
from torch import nn
from torch.optim import SGD

from pymodules_core import ModulePool, Trainer
from pymodules_core.errors import StepError, TaskError
from pymodules_core.training.run_output.console import SilentPrinter

STEPS, ACCUMULATE = 6, 2
WIDE = """
    from torch import nn

    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 4))
    settings = {}
"""
HEAD = """
import torch
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint


def train_data():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 4, generator=generator) for _ in range(6)]


def optimizers(module_pool):
    return {name: SGD(module_pool[name].parameters(), 0.1) for name in ("d", "g")}


def train_step(module_pool, batch, run):
    d, g = module_pool.d, module_pool.g
"""
# In each the discriminator's loss is of fakes as they were before either network's update.
STEPS_OF = {
    "above_both": """
    fake = g(batch)
    with run.optimize("d") as step:
        step.loss = d(fake.detach()).square().mean()
    with run.optimize("g") as step:
        step.loss = (d(fake) - 1).square().mean() + 0.001 * fake.square().mean()
""",
    "inside_the_first": """
    with run.optimize("d") as step:
        fake = g(batch)
        step.loss = d(fake.detach()).square().mean()
    with run.optimize("g") as step:
        step.loss = (d(fake) - 1).square().mean() + 0.001 * fake.square().mean()
""",
    "inside_the_first_and_not_detached": """
    with run.optimize("d") as step:
        fake = g(batch)
        step.loss = d(fake).square().mean()
    with run.optimize("g") as step:
        step.loss = (d(fake) - 1).square().mean() + 0.001 * fake.square().mean()
""",
    "above_both_and_not_detached": """
    fake = g(batch)
    with run.optimize("d") as step:
        step.loss = d(fake).square().mean()
    with run.optimize("g") as step:
        step.backward((d(fake) - 1).square().mean() + 0.001 * fake.square().mean())
""",
    "through_a_checkpoint": """
    with run.optimize("d") as step:
        fake = checkpoint(g[1:], g[0](batch), use_reentrant=False)
        step.loss = checkpoint(d[2:], d[:2](fake), use_reentrant=False).square().mean()
    with run.optimize("g") as step:
        step.loss = (d(fake) - 1).square().mean() + 0.001 * fake.square().mean()
""",
}


def write(home, step: str, toml: str = ""):
    return write_experiment(home, modules={"d": WIDE, "g": WIDE}, task=HEAD + step, toml=toml)


def train_by_hand(d: nn.Module, g: nn.Module, *, accumulate: int = 1) -> None:
    """Do what the experiment does: each loss by ``torch.autograd.grad`` of its own network."""
    d.train()
    g.train()
    generator = torch.Generator().manual_seed(1)
    optimizers = {one: SGD(one.parameters(), 0.1) for one in (d, g)}
    for number in range(1, STEPS + 1):
        fake = g(torch.randn(5, 4, generator=generator))
        for one, loss_of in (
            (d, lambda fake: d(fake).square().mean()),
            (g, lambda fake: (d(fake) - 1).square().mean() + 0.001 * fake.square().mean()),
        ):
            own = list(one.parameters())
            gradients = torch.autograd.grad(loss_of(fake) / accumulate, own, retain_graph=True)
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            if number % accumulate == 0:
                optimizers[one].step()
                optimizers[one].zero_grad()


@pytest.mark.parametrize("step", STEPS_OF)
@pytest.mark.parametrize("accumulate", [1, ACCUMULATE])
def test_wherever_the_fakes_are_drawn_both_networks_are_those_of_a_hand_written_loop(
    tmp_path, step, accumulate
):
    toml = f"[train]\nepochs = 1\n[optimizers.d]\naccumulate = {accumulate}\n"
    toml += f"[optimizers.g]\naccumulate = {accumulate}\n"
    path = write(tmp_path, STEPS_OF[step], toml)
    pool = ModulePool.discover(path)
    initial = {name: pool[name][0].weight.clone() for name in pool}

    Trainer(path, reporter=SilentPrinter()).fit()
    train_by_hand(pool.d, pool.g, accumulate=accumulate)

    for name in ("d", "g"):
        assert not torch.equal(pool[name][0].weight, initial[name])
        saved = torch.load(path / "data" / "module_ckps" / "last" / f"{name}.pt", weights_only=True)
        for key, value in pool[name].named_parameters():
            torch.testing.assert_close(saved[key], value, rtol=1e-5, atol=1e-6)


PENALTY = """
    with run.optimize("d") as step:
        fake = g(batch)
        mixed = ((batch + fake) / 2).requires_grad_()
        (slope,) = torch.autograd.grad(d(mixed).sum(), mixed, create_graph=True)
        step.loss = d(fake).mean() - d(batch).mean() + (slope.norm(dim=1) - 1).square().mean()
    with run.optimize("g") as step:
        step.loss = -d(fake).mean()
"""


def test_a_gradient_penalty_on_fakes_that_are_not_detached_trains_the_discriminator_alone(tmp_path):
    path = write(tmp_path, PENALTY, "[train]\nmax_steps = 1\n")
    pool = ModulePool.discover(path)
    d, g = pool.d, pool.g
    batch = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))

    Trainer(path, reporter=SilentPrinter()).fit()
    fake = g(batch)
    mixed = (batch + fake.detach()) / 2
    mixed.requires_grad_()
    (slope,) = torch.autograd.grad(d(mixed).sum(), mixed, create_graph=True)
    loss = d(fake.detach()).mean() - d(batch).mean() + (slope.norm(dim=1) - 1).square().mean()
    gradients = torch.autograd.grad(loss, list(d.parameters()), allow_unused=True)

    saved = torch.load(path / "data" / "module_ckps" / "last" / "d.pt", weights_only=True)
    for (key, value), gradient in zip(d.named_parameters(), gradients, strict=True):
        moved = value if gradient is None else value - 0.1 * gradient
        torch.testing.assert_close(saved[key], moved.detach())


@pytest.mark.parametrize("at_step", [0, 4])
def test_a_loss_that_reaches_no_parameter_of_its_optimizer_is_an_error_at_any_step(
    tmp_path, at_step
):
    step = f"""
    fake = g(batch)
    with run.optimize("d") as step:
        step.loss = d(fake).mean()
    with run.optimize("g") as step:
        step.loss = d(fake.detach() if run.step == {at_step} else fake).mean()
"""
    path = write(tmp_path, step)

    with pytest.raises(TaskError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()

    assert str(caught.value).endswith(
        f"task.py:22: the loss of optimizer 'g' reaches none of its parameters, so nothing would "
        f"learn (epoch 1, step {at_step + 1}, batch {at_step + 1})\n"
        "  fix: compute it from the modules whose parameters the optimizer has, without detach or "
        "torch.no_grad; or leave out its block in this step"
    )


def test_a_loss_of_an_optimizer_whose_parameters_take_no_gradient_is_an_error(tmp_path):
    step = """
    g.requires_grad_(False)
    with run.optimize("g") as step:
        step.loss = d(g(batch)).mean()
"""
    path = write(tmp_path, step)

    with pytest.raises(TaskError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()

    assert "no parameter of optimizer 'g' requires a gradient" in caught.value.what
    assert caught.value.fix == (
        "leave out its block in this step, or call requires_grad_(True) before"
    )


REENTRANT = "checkpoint(g[0], batch.requires_grad_(), use_reentrant=True)"


REENTRANT_STEPS = {
    "first": f"""
    with run.optimize("g") as step:
        step.loss = d(g[1:]({REENTRANT})).mean()
""",
    "second block of a step": f"""
    with run.optimize("g") as step:
        step.loss = g[1:](batch).mean()
    with run.optimize("g") as step:
        step.loss = d(g[1:]({REENTRANT})).mean()
""",
    "later": f"""
    with run.optimize("g") as step:
        hidden = {REENTRANT} if run.step == 3 else g[0](batch)
        step.loss = d(g[1:](hidden)).mean()
""",
}


@pytest.mark.parametrize("step", REENTRANT_STEPS.values(), ids=REENTRANT_STEPS)
def test_a_reentrant_checkpoint_is_refused_where_there_are_several_optimizers(tmp_path, step):
    path = write(tmp_path, step)

    with pytest.raises(TaskError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()

    assert "the loss of optimizer 'g' goes through a re-entrant checkpoint" in caught.value.what
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("checkpoint(..., use_reentrant=False)")


def test_a_reentrant_checkpoint_trains_where_there_is_one_optimizer(tmp_path):
    task = HEAD.replace(
        'return {name: SGD(module_pool[name].parameters(), 0.1) for name in ("d", "g")}',
        "return SGD([*module_pool.d.parameters(), *module_pool.g.parameters()], 0.1)",
    )
    task += f"    return d(g[1:]({REENTRANT})).mean()\n"
    path = write_experiment(tmp_path, modules={"d": WIDE, "g": WIDE}, task=task)
    initial = ModulePool.discover(path).g[0].weight

    Trainer(path, reporter=SilentPrinter()).fit()

    saved = torch.load(path / "data" / "module_ckps" / "last" / "g.pt", weights_only=True)
    assert not torch.equal(saved["0.weight"], initial)


GRAPHS = {
    "freed by another block": (
        """
    judged = d(g(batch)).square().mean()
    with run.optimize("d") as step:
        step.loss = judged
    with run.optimize("g") as step:
        step.loss = judged - 1
""",
        "compute it again in the block that uses it: the block of another optimizer, or an earlier "
        "step, has freed its graph",
    ),
    "older than an update": (
        """
    fake = g(batch)
    judged = (d(fake) - 1).square().mean()
    with run.optimize("d") as step:
        step.loss = d(fake.detach()).square().mean()
    with run.optimize("g") as step:
        step.loss = judged
""",
        "compute it again after what changed it; the end of a run.optimize block updates weights, "
        "and a graph through them from before is of no use",
    ),
}


@pytest.mark.parametrize(("step", "fix"), GRAPHS.values(), ids=GRAPHS)
def test_a_graph_that_is_used_too_late_says_what_to_compute_again(tmp_path, step, fix):
    path = write(tmp_path, step)

    with pytest.raises(StepError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()

    assert caught.value.fix == fix
