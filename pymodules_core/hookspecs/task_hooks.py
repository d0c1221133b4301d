"""Hooks of the task: data, optimizers and steps, in ``pymodules/task.py``.

``task.py`` is a plugin of plain functions: a function named after a hook is its implementation, no
decorator needed. Each takes only the arguments it wants. All of them run in the training process;
whatever they raise fails the run with the file and line of the task.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pymodules_core.hookspecs.markers import hookspec
from pymodules_core.hookspecs.types import ModulePool, Run

if TYPE_CHECKING:
    from torch.optim import Optimizer


class TaskHooks:
    """What is trained on what, and how.

    A whole task::

    def train_data():
        return TensorDataset(images, labels)

    def eval_data():
        return TensorDataset(eval_images, eval_labels)

    def optimizers(module_pool, config):
        return Adam(module_pool.net.parameters(), lr=config["lr"])

    def train_step(module_pool, batch):
        images, labels = batch
        return cross_entropy(module_pool.net(images), labels)

    def eval_step(module_pool, batch):
        images, labels = batch
        logits = module_pool.net(images)
        return {"loss": cross_entropy(logits, labels)}
    """

    @hookspec
    def train_data(self, config: Any, rank: int, world_size: int) -> Iterable[Any]:
        """Return the training data; called once, before the optimizers. Required.

        Args:
            config: The ``[task]`` table, or the task's ``Config`` made from it.
            rank: The number of this process, for data that each process has a part of its own of.
            world_size: How many processes train together.

        Returns:
            A ``torch.utils.data.Dataset`` (the trainer batches and shuffles it by seed and epoch),
            a ``DataLoader``, or any iterable of batches that can be read once an epoch. Several
            processes split the batches of datasets; other data gives each its own part, and says
            so by an attribute ``sharded = True``.
        """

    @hookspec
    def eval_data(self, config: Any, rank: int, world_size: int) -> Iterable[Any]:
        """Return the evaluation data, never shuffled; without it there is no ``best``.

        Args:
            config: The ``[task]`` table, or the task's ``Config`` made from it.
            rank: As for ``train_data``.
            world_size: As for ``train_data``.

        Returns:
            As ``train_data``.
        """

    @hookspec
    def optimizers(
        self, module_pool: ModulePool, config: Any
    ) -> "Optimizer | Mapping[str, Optimizer]":
        """Return the optimizers; called once, after the modules are on their device. Required.

        Args:
            module_pool: The pool; frozen modules have no parameter to train.
            config: The ``[task]`` table, or the task's ``Config`` made from it.

        Returns:
            One optimizer, called ``main`` from then on, or a dict of them by name.
        """

    @hookspec
    def schedulers(
        self,
        optimizers: "Mapping[str, Optimizer]",
        config: Any,
        epochs: int,
        steps_per_epoch: int | None,
    ) -> Any:
        """Return learning-rate schedulers; called once. Optional.

        Args:
            optimizers: The optimizers by name.
            config: The ``[task]`` table, or the task's ``Config`` made from it.
            epochs: Epochs planned.
            steps_per_epoch: Batches of an epoch, or None where the data does not know its length.

        Returns:
            One scheduler where there is one optimizer, else a dict by optimizer name.
        """

    @hookspec
    def train_step(self, module_pool: ModulePool, batch: Any, run: Run, config: Any) -> Any:
        """Compute one step; called for every batch. Required.

        Args:
            module_pool: The pool, in train mode but for frozen modules.
            batch: One batch, its tensors on ``run.device``.
            run: Device, epoch, step, ``log`` and ``optimize``.
            config: The ``[task]`` table, or the task's ``Config`` made from it.

        Returns:
            With one optimizer the loss, or a dict with ``loss`` and metrics; the trainer does
            backward and step. With ``run.optimize`` blocks nothing, or a dict of metrics.
        """

    @hookspec
    def eval_step(self, module_pool: ModulePool, batch: Any, run: Run, config: Any) -> Any:
        """Compute the metrics of one batch, in eval mode and without gradients.

        Args:
            module_pool: The pool, in eval mode.
            batch: One batch, its tensors on ``run.device``.
            run: Device, epoch, step and ``log``.
            config: The ``[task]`` table, or the task's ``Config`` made from it.

        Returns:
            A dict of numbers or one-element tensors, averaged over the eval set by batch size, or
            of objects with ``update``, ``compute`` and ``reset``; a single number is the loss.
        """
