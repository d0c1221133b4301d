"""How the classifier is trained: its data, its optimizer, and one step of train and eval."""

import attrs
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import TensorDataset

from pymodules_core import ModulePool


@attrs.define
class Config:
    """The `[task]` table of experiment.toml.

    Attributes:
        lr: Learning rate of the first epoch.
        lr_decay: Factor on the learning rate after each epoch.
    """

    lr: float = 4e-3
    lr_decay: float = 0.8


def train_data() -> TensorDataset:
    """Return 80% of the digits."""
    return load_split()[0]


def eval_data() -> TensorDataset:
    """Return the other 20%."""
    return load_split()[1]


def optimizers(module_pool: ModulePool, config: Config) -> AdamW:
    """Train both modules with one optimizer, which is then called `main`."""
    parameters = [*module_pool.encoder.parameters(), *module_pool.head.parameters()]
    return AdamW(parameters, lr=config.lr)


def schedulers(optimizers: dict[str, AdamW], config: Config) -> ExponentialLR:
    """Lower the learning rate a little after every epoch."""
    return ExponentialLR(optimizers["main"], gamma=config.lr_decay)


def train_step(module_pool: ModulePool, batch: list[Tensor]) -> Tensor:
    """Return the loss; backward and the optimizer's step are the trainer's work."""
    images, labels = batch
    logits = module_pool.head(module_pool.encoder(images))
    return cross_entropy(logits, labels)


def eval_step(module_pool: ModulePool, batch: list[Tensor]) -> dict[str, Tensor]:
    """Return the metrics of one batch; the trainer averages them over all batches."""
    images, labels = batch
    logits = module_pool.head(module_pool.encoder(images))
    return {
        "loss": cross_entropy(logits, labels),
        "accuracy": (logits.argmax(dim=1) == labels).float().mean(),
    }


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
