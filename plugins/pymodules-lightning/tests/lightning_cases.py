"""Experiments and Lightning programs on the digits, for all tests; also run as a process."""

import sys
import warnings
from pathlib import Path
from textwrap import dedent

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from pymodules_lightning import PoolCheckpoint, PoolMixin
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

NETS = {
    "student": """
        from torch import nn

        def build():
            return nn.Sequential(
                nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10)
            )
        """,
    "teacher": """
        from torch import nn

        settings = {"frozen": True}
        module = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)
        )
        """,
    "scale": """
        from torch import nn

        settings = {"mode": "eval"}
        module = nn.BatchNorm1d(64)
        """,
}
GAN_NETS = {
    "generator": """
        from torch import nn

        settings = {}
        module = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64))
        """,
    "discriminator": """
        from torch import nn

        settings = {}
        module = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(), nn.Dropout(0.3), nn.Linear(32, 1))
        """,
    "features": """
        from torch import nn

        settings = {"frozen": True}
        module = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Tanh())
        """,
}
TOML = """
    [train]
    seed = 3
    monitor = "val_loss"
    """
GAN_TOML = """
    [train]
    monitor = "distance"
    """


def write_experiment(home, name, modules, toml=TOML, task=None) -> Path:
    """Write an experiment folder into a data home."""
    folder = Path(home) / "experiments" / name
    files = folder / "pymodules" / "modules"
    files.mkdir(parents=True)
    (folder / "experiment.toml").write_text(dedent(toml))
    for module_name, source in modules.items():
        (files / f"{module_name}.py").write_text(dedent(source))
    if task is not None:
        (folder / "pymodules" / "task.py").write_text(dedent(task))
    return folder


def digits(first: int, last: int) -> TensorDataset:
    """Return some digits: images ``(64,)`` in 0..1 and labels."""
    found = load_digits()
    images = torch.tensor(found.data[first:last], dtype=torch.float32) / 16
    return TensorDataset(images, torch.tensor(found.target[first:last]))


class Distill(PoolMixin, LightningModule):
    """A student learns labels and the answers of a frozen teacher; automatic optimization.

    Its learning rate falls with ``val_loss``, and it holds a temperature of its own.
    """

    def __init__(self, experiment, *, data_home=None, **options):
        super().__init__(experiment, data_home=data_home, **options)
        self.temperature = nn.Parameter(torch.ones(()))

    def training_step(self, batch):
        images, labels = batch
        images = self.module_pool.scale(images)
        logits = self.module_pool.student(images) * self.temperature
        loss = cross_entropy(logits, labels) + 0.1 * mse_loss(
            logits, self.module_pool.teacher(images)
        )
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch):
        images, labels = batch
        logits = self.module_pool.student(self.module_pool.scale(images))
        self.log("val_loss", cross_entropy(logits, labels))
        self.log("val_accuracy", (logits.argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self):
        parameters = [*self.trained_parameters("student"), self.temperature]
        optimizer = torch.optim.AdamW(parameters, lr=0.1)
        # "max" of a loss that falls: it steps after every epoch but the first.
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="max", factor=0.5, patience=0
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
        }

    def train_dataloader(self):
        return DataLoader(digits(0, 256), batch_size=64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(digits(256, 384), batch_size=64)


class Gan(PoolMixin, LightningModule):
    """Two optimizers by turns and a frozen perceptual loss; manual optimization."""

    def __init__(self, experiment, *, data_home=None):
        super().__init__(experiment, data_home=data_home)
        self.automatic_optimization = False

    def training_step(self, batch):
        pool = self.module_pool
        images = batch[0]
        for_generator, for_discriminator = self.optimizers()
        fake = pool.generator(torch.randn(len(images), 8))
        self.toggle_optimizer(for_discriminator)
        right = pool.discriminator(images)
        wrong = pool.discriminator(fake.detach())
        loss = binary_cross_entropy_with_logits(
            right, torch.ones_like(right)
        ) + binary_cross_entropy_with_logits(wrong, torch.zeros_like(wrong))
        self.manual_backward(loss)
        for_discriminator.step()
        for_discriminator.zero_grad()
        self.untoggle_optimizer(for_discriminator)
        self.toggle_optimizer(for_generator)
        judged = pool.discriminator(fake)
        loss = binary_cross_entropy_with_logits(judged, torch.ones_like(judged)) + mse_loss(
            pool.features(fake).mean(dim=0), pool.features(images).mean(dim=0)
        )
        self.manual_backward(loss)
        for_generator.step()
        for_generator.zero_grad()
        self.untoggle_optimizer(for_generator)

    def validation_step(self, batch, batch_idx):
        images = batch[0]
        noise = torch.randn(len(images), 8, generator=torch.Generator().manual_seed(batch_idx))
        fake = self.module_pool.generator(noise)
        self.log("distance", mse_loss(fake.mean(dim=0), images.mean(dim=0)))

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.trained_parameters("generator"), lr=3e-3),
            torch.optim.Adam(self.trained_parameters("discriminator"), lr=3e-3),
        ]

    def train_dataloader(self):
        return DataLoader(digits(0, 256), batch_size=64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(digits(256, 384), batch_size=64)


def make_trainer(folder, epochs, *callbacks, **options) -> Trainer:
    """Make a quiet trainer on the CPU."""
    given = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "callbacks": list(callbacks),
        "num_sanity_val_steps": 0,
    }
    return Trainer(**(given | options))


def weights_in(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return ``<pool>/<module_name>`` to the state dict in its file, as anybody reads it."""
    return {
        f"{file.parent.name}/{file.stem}": torch.load(file, weights_only=True)
        for file in sorted(Path(folder).glob("[!.]*/*.pt"))
    }


def same_weights(one, other) -> bool:
    """Return whether two state dicts are equal bit for bit."""
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def copy_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copy a state dict."""
    return {key: value.clone() for key, value in module.state_dict().items()}


PROGRAMS = {"distill": (Distill, NETS, TOML), "gan": (Gan, GAN_NETS, GAN_TOML)}


def make_model(program: str, home) -> LightningModule:
    """Make a program's model; its experiment is written where it is not there yet."""
    kind, modules, toml = PROGRAMS[program]
    if not (Path(home) / "experiments" / program).exists():
        write_experiment(home, program, modules, toml)
    return kind(program, data_home=home)


def train(program, home, epochs, *callbacks, seed=1, model=None, **options):
    """Train an experiment that is named like its program, or continue with it."""
    seed_everything(seed)
    model = model or make_model(program, home)
    checkpoint = PoolCheckpoint(existing="resume")
    trainer = make_trainer(home, epochs, checkpoint, *callbacks, **options)
    trainer.fit(model)
    return trainer, model, checkpoint


def main(program: str, home: str, epochs: str, processes: str) -> None:
    """Train as a process, and say what came of it."""
    warnings.filterwarnings("ignore")  # what Lightning says of small data, to a log nobody reads
    torch.set_num_threads(1)
    options = {"devices": int(processes), "strategy": "ddp"} if processes != "1" else {}
    trainer, model, _ = train(program, home, int(epochs), **options)
    total = sum(parameter.double().sum().item() for parameter in model.parameters())
    # In one write: two processes share the pipe.
    sys.stdout.write(f"{trainer.current_epoch} {total}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
