"""Trains a teacher on the digits, then a student on few labels and the frozen teacher's answers.

The networks are the module files of two experiments in ``data/experiments/`` beside this file; a
second call resumes both runs, with more epochs if asked.

    python digits_distill.py [EPOCHS] [DATA_HOME]
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from pymodules_lightning import PoolCheckpoint, PoolMixin
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.data import DataLoader, TensorDataset

UNLABELLED = -1


class Digits(PoolMixin, LightningModule):
    """The data, the optimizer and the evaluation of a classifier."""

    classifies: str

    def validation_step(self, batch: list[Tensor]) -> None:
        """Log the metric that experiment.toml monitors."""
        images, labels = batch
        predicted = self.module_pool[self.classifies](images).argmax(dim=1)
        self.log("accuracy", (predicted == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train what is not frozen."""
        return torch.optim.AdamW(self.trained_parameters(), lr=5e-3)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return 80% of the digits."""
        return DataLoader(load_split()[0], batch_size=64, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the others."""
        return DataLoader(load_split()[1], batch_size=256)


class Teacher(Digits):
    """Learns all labels."""

    classifies = "classifier"

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """Return the loss of one batch."""
        images, labels = batch
        return cross_entropy(self.module_pool.classifier(images), labels)


class Student(Digits):
    """Learns a few labels, and the teacher's answers for all images.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
    """

    classifies = "student"

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """Return the loss of one batch."""
        images, labels = batch
        temperature = self.experiment.settings.task["temperature"]
        logits = self.module_pool.student(images)
        with torch.no_grad():
            answers = self.module_pool.teacher(images)
        label_loss = cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
        teacher_loss = kl_div(
            log_softmax(logits / temperature, dim=1),
            log_softmax(answers / temperature, dim=1),
            log_target=True,
            reduction="sum",
        )
        return (0.1 * label_loss + 0.9 * temperature**2 * teacher_loss) / len(images)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the same digits as to the teacher, most of them without a label."""
        images, labels = load_split()[0].tensors
        labels[self.experiment.settings.task["labelled"] :] = UNLABELLED
        return DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True)


def load_split() -> tuple[TensorDataset, TensorDataset]:
    """Split the digits, always in the same way.

    Returns:
        Two datasets of images ``(1, 8, 8)`` float in 0..1 and labels ``()`` int64 in 0..9.
    """
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target, dtype=torch.int64)
    train, test = train_test_split(
        range(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    return TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test])


def fit(model: LightningModule, epochs: int) -> None:
    """Train a model, or continue with its run, and print how good it became."""
    checkpoint = PoolCheckpoint(existing="resume")
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[checkpoint],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    name = type(model).__name__
    print(  # noqa: T201  # what a program is run for
        f"{name}: accuracy {checkpoint.best_value:.4f} after epoch {checkpoint.best_epoch}"
    )


def main() -> None:
    """Train both."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    home = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "data"
    seed_everything(0)
    fit(Teacher("digits_teacher", data_home=home), epochs)
    fit(Student("digits_student", data_home=home), 2 * epochs)


if __name__ == "__main__":
    main()
