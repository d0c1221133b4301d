"""``Run``: what steps and hooks see of the training they are part of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.optim import Optimizer

from pymodules_core.errors import TaskError
from pymodules_core.experiment import Experiment
from pymodules_core.module_pool import ModulePool
from pymodules_core.settings.structure import format_value
from pymodules_core.training.optim.block import OptimizeBlock
from pymodules_core.training.state.user_state import UserState
from pymodules_core.training.task.control import RunControl, detached
from pymodules_core.training.task.metrics import check_metric

_CHANNELS = (1, 3, 4)


@attrs.define(kw_only=True, eq=False, repr=False, slots=False)
class Run:
    """One training of an experiment.

    Args:
        experiment: The experiment.
        module_pool: Its modules.
        config: The ``[task]`` table, or the task's ``Config`` made from it.
        device: Where modules and batches are.
        data_dir: Folder of what the run writes.
        control: What the loops keep of the step at hand.

    Attributes:
        experiment: The experiment.
        module_pool: Its modules.
        config: The task's configuration.
        device: Where modules and batches are.
        data_dir: Folder of what the run writes; hooks may put files there.
        epoch: The epoch that runs, counted from 1; 0 before training.
        step: Train steps so far, whichever optimizers they updated.
        resumed_step: The step this process resumed from; None in a run that began in it.
        state: A dict of the task's and of plugins that every checkpoint holds and a resume
            restores: tensors, arrays, primitives, and objects with ``state_dict``.
    """

    experiment: Experiment
    module_pool: ModulePool
    config: Any
    device: torch.device
    data_dir: Path
    _control: RunControl
    epoch: int = attrs.field(default=0, init=False)
    step: int = attrs.field(default=0, init=False)
    resumed_step: int | None = attrs.field(default=None, init=False)
    state: UserState = attrs.field(factory=UserState, init=False)

    @property
    def rank(self) -> int:
        """The number of this process among those that train together; 0 writes files."""
        return self._control.processes.rank

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self._control.processes.size

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.experiment.settings.train.seed

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """Name to optimizer."""
        return {name: one.optimizer for name, one in self._control.optimizers.items()}

    @property
    def batch_size(self) -> int:
        """Samples of the batch at hand; set it where it cannot be read off the batch."""
        return self._control.batch_size

    @batch_size.setter
    def batch_size(self, samples: int) -> None:
        self._control.batch_size = samples

    def log(self, name: str, value: Any) -> None:
        """Add a metric of this batch; it is averaged by batch size like those that steps return.

        Args:
            name: Name of the metric.
            value: A number or a one-element tensor.

        Raises:
            TaskError: ``value`` is neither, or no step is at work.
        """
        check_metric(name, value)
        if not self._control.is_in_step:
            raise TaskError(
                f"run.log({name!r}) is called outside of a step, so it is of no batch",
                key=name,
                fix="log it in train_step or eval_step; a hook writes to run.data_dir",
            )
        self._control.logged.append((name, detached(value)))

    def log_image(self, name: str, image: torch.Tensor) -> None:
        """Show an image to the loggers, by the hook ``image_logged``; without one this is free.

        Args:
            name: What it is called.
            image: ``(channels, height, width)``, or a batch of them, ``(images, channels, height,
                width)``, of 1, 3 or 4 channels: float from 0 to 1, or uint8.

        Raises:
            TaskError: ``image`` has another shape or type.
        """
        _check_image(name, image)
        if self._control.on_image is not None:
            self._control.on_image(name=name, image=image.detach())

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the samples of a whole batch, of which several processes have parts.

        For a metric or a loss that is not a mean over samples, such as a loss over all pairs. In
        ``train_step`` gradients come back through it: the loss trains what it would in one process.
        Every process has to call it.

        Args:
            tensor: ``(samples, ...)``, of one dtype and of one shape but for the samples.

        Returns:
            ``(all samples, ...)`` in their order, the same in all processes; in one process the
            tensor itself.

        Raises:
            TaskError: ``tensor`` has no dimension for samples.
            ProcessesError: The tensors of the processes differ in more than their samples.
        """
        if not tensor.dim():
            raise TaskError(
                "run.gather takes a tensor of shape (samples, ...), and got one of shape ()",
                found=tensor,
                fix="give it one row a sample; what is averaged over samples needs no gather",
            )
        control = self._control
        if control.processes.is_alone:
            return tensor
        # Of a batch that all processes have whole, the first one's rows count.
        is_repeated = control.is_in_step and not control.is_counted
        return control.processes.all_gather_rows(tensor[:0] if is_repeated else tensor)

    def optimize(self, name: str = "main") -> OptimizeBlock:
        """Open a block whose loss updates one optimizer.

        Args:
            name: The optimizer; ``main`` where the task gave a single one.

        Raises:
            TaskError: No such optimizer, another block is not over yet, or nothing trains.
        """
        return self._control.open_block(name)


def _check_image(name: Any, image: Any) -> None:
    """Refuse what no logger could show.

    Raises:
        TaskError: ``name`` is not a string, or ``image`` not an image.
    """
    if not isinstance(name, str):
        raise TaskError(
            f"an image is called {name!r}, expected str", found=name, fix=f"call it {str(name)!r}"
        )
    if not isinstance(image, torch.Tensor):
        raise TaskError(
            f"image {name!r} is {format_value(image)}, expected a tensor",
            key=name,
            found=image,
            fix="torch.as_tensor(image)",
        )
    shape = list(image.shape)
    if image.ndim not in {3, 4} or image.shape[-3] not in _CHANNELS:
        raise TaskError(
            f"image {name!r} has shape {shape}, expected (channels, height, width) or (images, "
            "channels, height, width) with 1, 3 or 4 channels",
            key=name,
            found=shape,
            fix="image.unsqueeze(-3) adds the channel of grey images"
            if image.ndim in {2, 3}
            else "image.reshape(-1, channels, height, width)",
        )
    if not (image.is_floating_point() or image.dtype == torch.uint8):
        raise TaskError(
            f"image {name!r} has dtype {image.dtype}, expected float from 0 to 1, or uint8",
            key=name,
            found=image.dtype,
            fix="image.float(), scaled to 0 to 1",
        )
