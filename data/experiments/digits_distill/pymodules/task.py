"""How the student is trained: on the few labels there are, and on the teacher's view of all images.

The method is knowledge distillation: Hinton et al., "Distilling the Knowledge in a Neural Network",
2015. The classifier has seen all labels, as a teacher usually has seen more than its student gets.
"""

import attrs
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.optim import AdamW
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import TensorDataset

from pymodules_core import ModulePool, Run

UNLABELLED = -1


@attrs.define
class Config:
    """The `[task]` table of experiment.toml.

    Attributes:
        lr: Learning rate of the first epoch.
        lr_decay: Factor on the learning rate after each epoch.
        labelled_fraction: Share of the training images whose label the student may see.
        teacher_weight: Share of the teacher in the loss; at 0 there are only the labels.
        temperature: Above 1 it softens the teacher's answers, so that second guesses show.
    """

    lr: float = 1e-2
    lr_decay: float = 0.9
    labelled_fraction: float = 0.1
    teacher_weight: float = 0.9
    temperature: float = 2.0


def train_data(config: Config) -> TensorDataset:
    """Return 80% of the digits, most of them without a label."""
    images, labels = load_split()[0].tensors
    # The split is shuffled already, so the first ones are as good as random ones.
    labels[round(config.labelled_fraction * len(labels)) :] = UNLABELLED
    return TensorDataset(images, labels)


def eval_data() -> TensorDataset:
    """Return the other 20%, with labels."""
    return load_split()[1]


def optimizers(module_pool: ModulePool, config: Config) -> AdamW:
    """Train the student; the frozen teacher has nothing to optimize."""
    return AdamW(module_pool.student.parameters(), lr=config.lr)


def schedulers(optimizers: dict[str, AdamW], config: Config) -> ExponentialLR:
    """Lower the learning rate a little after every epoch."""
    return ExponentialLR(optimizers["main"], gamma=config.lr_decay)


def train_step(module_pool: ModulePool, batch: list[Tensor], run: Run) -> dict[str, Tensor]:
    """Return the loss, and its two parts to look at."""
    images, labels = batch
    logits = module_pool.student(images)
    with torch.no_grad():
        teacher_logits = module_pool.teacher_head(module_pool.teacher_encoder(images))

    label_loss = labelled_cross_entropy(logits, labels)
    teacher_loss = distillation_loss(logits, teacher_logits, run.config.temperature)
    loss = torch.lerp(label_loss, teacher_loss, run.config.teacher_weight)
    return {"loss": loss, "label_loss": label_loss, "teacher_loss": teacher_loss}


def eval_step(module_pool: ModulePool, batch: list[Tensor]) -> dict[str, Tensor]:
    """Return the metrics of one batch; the trainer averages them over all batches."""
    images, labels = batch
    logits = module_pool.student(images)
    return {
        "loss": cross_entropy(logits, labels),
        "accuracy": (logits.argmax(dim=1) == labels).float().mean(),
    }


def labelled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Average the cross-entropy over the labelled images of a batch; 0 if there are none."""
    total = cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    # torch's own mean would be NaN for a batch without any label.
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Measure how far the student is from the teacher's softened answers.

    Args:
        logits: ``(batch, 10)`` float, of the student.
        teacher_logits: ``(batch, 10)`` float.
        temperature: What both are divided by.

    Returns:
        ``()`` float, the Kullback-Leibler divergence per image.
    """
    student = log_softmax(logits / temperature, dim=1)
    teacher = log_softmax(teacher_logits / temperature, dim=1)
    divergence = kl_div(student, teacher, log_target=True, reduction="batchmean")
    # Softening shrinks gradients by the square; this keeps the loss's weight independent of it.
    return divergence * temperature**2


def load_split() -> tuple[TensorDataset, TensorDataset]:
    """Split the digits into train and eval.

    Returns:
        Two datasets of images ``(1, 8, 8)`` float in 0..1 and labels ``()`` int64 in 0..9.
    """
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target, dtype=torch.int64)
    # The same split as in digits_classifier: the teacher must not have seen the eval images.
    train, test = train_test_split(
        range(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    return TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test])
