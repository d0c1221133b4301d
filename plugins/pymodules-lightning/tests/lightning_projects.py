"""LightningModules of a project that knows nothing of pymodules, and settings that take of them."""

import pymodules_lightning.plugin
import pytorch_lightning
import torch
from lightning.pytorch import LightningModule, seed_everything
from lightning_cases import make_trainer
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

PLUGINS = {"lightning": pymodules_lightning.plugin}
KEY = "plugins.settings.lightning.modules.teacher"


class Encoder(nn.Module):
    """Two layers, with statistics that are buffers."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh())
        self.out = nn.Linear(width, 1)

    def forward(self, inputs):
        return self.out(self.body(inputs))


class LitSum(LightningModule):
    """Learns the sum of four numbers; keys of its head end as those of its encoder do."""

    def __init__(self, width: int = 8, rate: float = 0.05, note: object = None):  # noqa: ARG002  kept by Lightning
        super().__init__()
        self.save_hyperparameters()
        self.width = width
        self.rate = rate
        self.encoder = Encoder(width)
        self.head = nn.Linear(1, 1)
        self.out = nn.Linear(1, 2)

    def training_step(self, batch):
        inputs, targets = batch
        return mse_loss(self.head(self.encoder(inputs)), targets)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.rate)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def train_dataloader(self):
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(inputs, inputs.sum(dim=1, keepdim=True)), batch_size=16)


class LitLate(LightningModule):
    """Makes its network where Lightning wants those that a strategy shards."""

    def __init__(self):
        super().__init__()
        self.encoder = None

    def configure_model(self):
        if self.encoder is None:
            self.encoder = Encoder(3)


class LitOld(pytorch_lightning.LightningModule):
    """Of the package under its former name."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder(3)


class LitWatch(LightningModule):
    """Watches its network by a hook, which is a method of its own."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder(3)
        self.encoder.body.register_forward_hook(self.see)

    def see(self, module, inputs, outputs):  # noqa: ARG002  torch's signature
        self.seen = outputs


class LitNeeds(LightningModule):
    """Has an argument without a default, and refuses what it is given."""

    def __init__(self, width: int):
        super().__init__()
        if width < 1:
            message = f"width is {width}"
            raise ValueError(message)


class Note:
    """Something that a checkpoint of Lightning keeps with its hyper-parameters."""

    def __init__(self, text):
        self.text = text


def train_lightning(home, name="sum.ckpt", **arguments):
    """Train with Lightning's trainer, and return the model and the checkpoint it wrote."""
    seed_everything(1)
    model = LitSum(**arguments)
    trainer = make_trainer(home, 3, enable_checkpointing=False, log_every_n_steps=1)
    trainer.fit(model)
    file = home / "module_ckps" / name
    trainer.save_checkpoint(file)
    return model, file


def table(*lines, **fields):
    """Return ``experiment.toml`` with fields of the teacher's table in place of its own."""
    given = {"lightning_module": '"lightning_projects:LitSum"', "attribute": '"encoder"'} | fields
    rows = [f"{key} = {value}" for key, value in given.items() if value is not None]
    return "\n".join([f"[{KEY}]", *rows, *lines])
