"""How the GAN is trained: two optimizers take turns, and drawn digits are compared to real ones."""

from pathlib import Path

import attrs
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, pad
from torch.optim import Adam
from torch.utils.data import DataLoader, TensorDataset

from pymodules_core import ModulePool, Run

NOISE_SIZE = 32  # as in modules/generator.py


@attrs.define
class Config:
    """The `[task]` table of experiment.toml."""

    generator_lr: float = 5e-4
    discriminator_lr: float = 1e-3


def train_data() -> TensorDataset:
    """Return 80% of the digits."""
    return load_split()[0]


def eval_data() -> DataLoader:
    """Return the other 20% as a single batch, because the metric compares whole sets of images."""
    dataset = load_split()[1]
    return DataLoader(dataset, batch_size=len(dataset))


def optimizers(module_pool: ModulePool, config: Config) -> dict[str, Adam]:
    """Return each module its own optimizer."""
    # No momentum: the other side moves too, so past gradients point to where it was.
    betas = (0.0, 0.99)
    return {
        "d": Adam(module_pool.discriminator.parameters(), config.discriminator_lr, betas),
        "g": Adam(module_pool.generator.parameters(), config.generator_lr, betas),
    }


def train_step(module_pool: ModulePool, batch: list[Tensor], run: Run) -> dict[str, Tensor]:
    """Update the discriminator, then the generator; return both losses as metrics."""
    images, labels = batch
    noise = torch.randn(len(images), NOISE_SIZE, device=run.device)
    fakes = module_pool.generator(noise, labels)

    with run.optimize("d") as step:
        real_logits = module_pool.discriminator(images, labels)
        fake_logits = module_pool.discriminator(fakes.detach(), labels)
        # 0.9 instead of 1 keeps it from being too sure, which would leave no gradient to learn by.
        d_loss = loss_towards(0.9, real_logits) + loss_towards(0.0, fake_logits)
        step.loss = d_loss

    with run.optimize("g") as step:
        g_loss = loss_towards(1.0, module_pool.discriminator(fakes, labels))
        step.loss = g_loss

    return {"d_loss": d_loss.detach(), "g_loss": g_loss.detach()}


def eval_step(module_pool: ModulePool, batch: list[Tensor], run: Run) -> dict[str, Tensor]:
    """Draw the same digits as in the batch and compare."""
    # The metric is of all images together: several processes have a part of them each.
    images, labels = map(run.gather, batch)
    return {"mmd": mmd(draw(module_pool, labels), images)}


def epoch_finished(run: Run) -> None:
    """Show a drawing of each digit to loggers, such as pymodules-tensorboard."""
    run.module_pool.generator.eval()
    run.log_image("digits", draw(run.module_pool, torch.arange(10, device=run.device)))


def run_finished(run: Run) -> None:
    """Save eight drawings of each digit, one digit a column."""
    labels = torch.arange(10, device=run.device).repeat(8)
    run.module_pool.generator.eval()
    drawings = draw(run.module_pool, labels)
    if run.rank == 0:  # of several processes one writes
        save_grid(drawings, run.data_dir / "samples.png", columns=10)


def loss_towards(target: float, logits: Tensor) -> Tensor:
    """Measure how far the discriminator's ``(batch,)`` logits are from saying ``target``."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


@torch.no_grad()
def draw(module_pool: ModulePool, labels: Tensor) -> Tensor:
    """Draw the digits in ``labels`` from noise that is the same in every call."""
    # A generator of its own, on the CPU: independent of the run's seed and of the device.
    fixed = torch.Generator().manual_seed(0)
    noise = torch.randn(len(labels), NOISE_SIZE, generator=fixed).to(labels.device)
    return module_pool.generator(noise, labels)


def mmd(drawn: Tensor, real: Tensor) -> Tensor:
    """Estimate the squared maximum mean discrepancy of two sets of images.

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 3.

    Args:
        drawn: ``(n, 1, 8, 8)`` float, n at least 2.
        real: ``(m, 1, 8, 8)`` float, m at least 2.

    Returns:
        ``()`` float. About 0, also slightly below, if both come from one distribution.
    """
    x, y = drawn.flatten(1), real.flatten(1)
    n, m = len(x), len(y)
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within_x = (xx.sum() - xx.trace()) / (n * (n - 1))
    within_y = (yy.sum() - yy.trace()) / (m * (m - 1))
    return within_x + within_y - 2 * xy.mean()


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """Measure how alike each row of x is to each row of y, from 0 to 3, as ``(n, m)``."""
    squared_distances = torch.cdist(x, y).square()
    # Real digits are about 9 apart, squared; a finer and a coarser scale see other differences.
    return sum(torch.exp(-squared_distances / scale) for scale in (2.0, 8.0, 32.0))


def save_grid(images: Tensor, path: Path, columns: int, zoom: int = 6) -> None:
    """Save ``(count, 1, 8, 8)`` images in 0..1 as a grid, row by row."""
    framed = pad(images, (1, 1, 1, 1), value=0.3)
    rows = framed.reshape(-1, columns, 10, 10)
    pixels = rows.permute(0, 2, 1, 3).reshape(-1, columns * 10)
    picture = Image.fromarray(pixels.mul(255).byte().cpu().numpy())
    size = (picture.width * zoom, picture.height * zoom)
    picture.resize(size, Image.Resampling.NEAREST).save(path)


def load_split() -> tuple[TensorDataset, TensorDataset]:
    """Split the digits into train and eval.

    Returns:
        Two datasets of images ``(1, 8, 8)`` float in 0..1 and labels ``()`` int64 in 0..9.
    """
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target, dtype=torch.int64)
    # The split does not depend on the run's seed: runs with other seeds stay comparable.
    train, test = train_test_split(
        range(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    return TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test])
