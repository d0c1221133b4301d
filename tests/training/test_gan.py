"""A GAN with accumulation, clipping and mixed precision, beside a loop written by hand."""

import pytest
import torch
from support import write_experiment
from torch import nn
from torch.nn.functional import softplus

from pymodules_core import ModulePool, Trainer
from pymodules_core.training.run_output.console import SilentPrinter

ACCUMULATE, CLIP_NORM, STEPS = 4, 0.1, 20
MODULES = {
    "generator": """
        from torch import nn

        module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
        settings = {}
    """,
    "discriminator": """
        from torch import nn

        module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
        settings = {}
    """,
}
TASK = """
import torch
from torch.nn.functional import softplus
from torch.optim import Adam


def train_data():
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(8, 4, generator=generator), torch.randn(8, 6, generator=generator))
        for _ in range(20)
    ]


def optimizers(module_pool):
    return {
        "d": Adam(module_pool.discriminator.parameters(), 1e-2),
        "g": Adam(module_pool.generator.parameters(), 1e-2),
    }


def train_step(module_pool, batch, run):
    noise, real = batch
    fake = module_pool.generator(noise)
    with run.optimize("d") as step:
        judged = module_pool.discriminator(fake.detach())
        step.loss = (softplus(judged) + softplus(-module_pool.discriminator(real))).mean()
    with run.optimize("g") as step:
        step.loss = softplus(-module_pool.discriminator(fake)).mean()
"""
ABOVE = """    fake = module_pool.generator(noise)
    with run.optimize("d") as step:
"""
INSIDE = """    with run.optimize("d") as step:
        fake = module_pool.generator(noise)
"""
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def train_by_hand(generator: nn.Module, discriminator: nn.Module, precision: str) -> None:
    """Do what the experiment does, as people write it; gradients of the other side are dropped."""
    numbers = torch.Generator().manual_seed(3)
    dtype = DTYPES[precision]
    modules = {"d": discriminator, "g": generator}
    optimizers = {name: torch.optim.Adam(m.parameters(), 1e-2) for name, m in modules.items()}
    scalers = {
        name: torch.amp.GradScaler("cpu", enabled=precision == "fp16") for name in optimizers
    }
    sums = {name: [torch.zeros_like(p) for p in m.parameters()] for name, m in modules.items()}

    def accumulate(name: str, loss: torch.Tensor, *, is_full: bool) -> None:
        own = list(modules[name].parameters())
        scaled = scalers[name].scale(loss / ACCUMULATE)
        gradients = torch.autograd.grad(scaled, own, retain_graph=True)
        sums[name] = [total + new for total, new in zip(sums[name], gradients, strict=True)]
        if not is_full:
            return
        for parameter, total in zip(own, sums[name], strict=True):
            parameter.grad = total
        sums[name] = [torch.zeros_like(p) for p in own]
        scalers[name].unscale_(optimizers[name])
        nn.utils.clip_grad_norm_(own, CLIP_NORM)
        scalers[name].step(optimizers[name])
        scalers[name].update()

    def autocast():
        return torch.autocast("cpu", dtype=dtype, enabled=dtype is not None)

    for number in range(1, STEPS + 1):
        noise = torch.randn(8, 4, generator=numbers)
        real = torch.randn(8, 6, generator=numbers)
        is_full = number % ACCUMULATE == 0
        with autocast():
            fake = generator(noise)
            judged = discriminator(fake.detach())
            loss = (softplus(judged) + softplus(-discriminator(real))).mean()
        accumulate("d", loss, is_full=is_full)
        # A context of its own: the first has low-precision copies of the weights before the update.
        with autocast():
            loss = softplus(-discriminator(fake)).mean()
        accumulate("g", loss, is_full=is_full)


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("drawn", [ABOVE, INSIDE], ids=["above", "inside"])
def test_both_networks_equal_those_of_a_loop_written_by_hand(tmp_path, precision, drawn):
    toml = f"""
        [train]
        epochs = 1
        precision = "{precision}"
        [optimizers.d]
        accumulate = {ACCUMULATE}
        clip_norm = {CLIP_NORM}
        [optimizers.g]
        accumulate = {ACCUMULATE}
        clip_norm = {CLIP_NORM}
    """
    task = TASK.replace(ABOVE, drawn)
    path = write_experiment(tmp_path, modules=MODULES, task=task, toml=toml)
    pool = ModulePool.discover(path)
    initial = pool.generator[0].weight.clone()

    Trainer(path, reporter=SilentPrinter()).fit()
    train_by_hand(pool.generator, pool.discriminator, precision)

    assert not torch.equal(pool.generator[0].weight, initial)
    for name in MODULES:
        saved = torch.load(path / "data" / "module_ckps" / "last" / f"{name}.pt", weights_only=True)
        for key, value in pool[name].state_dict().items():
            torch.testing.assert_close(saved[key], value, rtol=1e-4, atol=1e-5)
