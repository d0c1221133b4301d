"""``Run``: what steps and hooks see of the training they are part of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from pymodules_core.errors import TaskError, closest_match, list_words
from pymodules_core.experiment import Experiment
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.group import Processes
from pymodules_core.training.data.rank_share import RankShare
from pymodules_core.training.optim.block import OptimizeBlock
from pymodules_core.training.optim.managed_optimizer import ManagedOptimizer
from pymodules_core.training.state.user_state import UserState
from pymodules_core.training.task.images import check_image
from pymodules_core.training.task.metrics import MetricAverages, check_metric


class Run:
    """One training of an experiment.

    Args:
        experiment: The experiment.
        module_pool: Its modules.
        config: The ``[task]`` table, or the task's ``Config`` made from it.
        device: Where modules and batches are.
        units: The optimizers by name.
        data_dir: Folder of what the run writes.
        processes: Who trains together.

    Attributes:
        experiment: The experiment.
        module_pool: Its modules.
        config: The task's configuration.
        device: Where modules and batches are.
        data_dir: Folder of what the run writes; hooks may put files there.
        epoch: The epoch that runs, counted from 1; 0 before training.
        step: Train steps so far, whichever optimizers they updated.
        resumed_step: The step this process goes on from; None in a run that began in it.
        state: A dict of the task's and of plugins that every checkpoint holds and a resume brings
            back: tensors, arrays, primitives, and objects with ``state_dict``.
        batch_size: Samples of the batch at hand; set it where it cannot be read off the batch.
    """

    def __init__(
        self,
        *,
        experiment: Experiment,
        module_pool: ModulePool,
        config: Any,
        device: torch.device,
        units: Mapping[str, ManagedOptimizer],
        data_dir: Path,
        processes: Processes,
    ) -> None:
        self._processes = processes
        self._is_counted = True
        self.experiment = experiment
        self.module_pool = module_pool
        self.config = config
        self.device = device
        self.data_dir = data_dir
        self.epoch = 0
        self.step = 0
        self.resumed_step: int | None = None
        self.state = UserState()
        self.batch_size = 1
        self._units = units
        self._averages = MetricAverages()
        self._is_evaluating = False
        self._stepped: set[str] = set()
        self._blocks: list[OptimizeBlock] = []
        self._logged: list[tuple[str, Any]] = []
        self._is_in_step = False
        self._step_metrics: dict[str, Any] | None = None
        self._on_image: Callable[..., None] | None = None

    @property
    def rank(self) -> int:
        """The number of this process among those that train together; 0 writes files."""
        return self._processes.rank

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self._processes.size

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.experiment.settings.train.seed

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """Name to optimizer."""
        return {name: unit.optimizer for name, unit in self._units.items()}

    def log(self, name: str, value: Any) -> None:
        """Add a metric of this batch; it is averaged by batch size like those that steps return.

        Args:
            name: Name of the metric.
            value: A number or a one-element tensor.

        Raises:
            TaskError: ``value`` is neither, or no step is at work.
        """
        check_metric(name, value)
        if not self._is_in_step:
            raise TaskError(
                f"run.log({name!r}) is called outside of a step, so it is of no batch",
                key=name,
                fix="log it in train_step or eval_step; a hook writes to run.data_dir",
            )
        self._logged.append((name, value.detach() if isinstance(value, torch.Tensor) else value))

    def log_image(self, name: str, image: torch.Tensor) -> None:
        """Show an image to the loggers, by the hook ``image_logged``; without one this is free.

        Args:
            name: What it is called.
            image: ``(channels, height, width)``, or a batch of them, ``(images, channels, height,
                width)``, of 1, 3 or 4 channels: float from 0 to 1, or uint8.

        Raises:
            TaskError: ``image`` has another shape or type.
        """
        check_image(name, image)
        if self._on_image is not None:
            self._on_image(name=name, image=image.detach())

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
        if self._processes.is_alone:
            return tensor
        # Of a batch that all processes have whole, the first one's rows count.
        is_repeated = self._is_in_step and not self._is_counted
        return self._processes.all_gather_rows(tensor[:0] if is_repeated else tensor)

    def optimize(self, name: str = "main") -> OptimizeBlock:
        """Open a block whose loss updates one optimizer.

        Args:
            name: The optimizer; ``main`` where the task gave a single one.

        Raises:
            TaskError: No such optimizer, another block is not over yet, or nothing trains.
        """
        unit = self._units.get(name)
        if unit is None:
            raise TaskError(
                f"run.optimize: there is no optimizer {name!r}; there are: "
                f"{list_words(self._units)}",
                found=name,
                closest=closest_match(str(name), self._units),
                fix="name one that optimizers returns",
            )
        if self._is_evaluating:
            raise TaskError(
                f"run.optimize({name!r}) is in eval_step, which computes no gradients",
                found=name,
                fix="optimize in train_step",
            )
        self._check_entered()
        if self._blocks and self._blocks[-1].is_open:
            raise TaskError(
                f"run.optimize({name!r}) is inside the block of "
                f"run.optimize({self._blocks[-1].name!r})",
                found=name,
                fix="close the first block before the second",
            )
        block = OptimizeBlock(unit, self._stepped)
        self._blocks.append(block)
        return block

    @property
    def averages(self) -> MetricAverages:
        """The metrics of the pass at hand, or of the last one."""
        return self._averages

    def connect_hooks(
        self, *, keeps_step_metrics: bool, on_image: Callable[..., None] | None
    ) -> None:
        """Say what run hooks want to know; whoever calls them does so once.

        Args:
            keeps_step_metrics: Whether ``take_step_metrics`` is to give anything.
            on_image: Called with the ``name`` and ``image`` of ``log_image``.
        """
        self._step_metrics = {} if keeps_step_metrics else None
        self._on_image = on_image

    def take_step_metrics(self) -> Mapping[str, Any]:
        """Give the metrics of the step at hand, and keep no tensor of it."""
        if self._step_metrics is None:
            return {}
        metrics, self._step_metrics = self._step_metrics, {}
        return metrics

    def start_pass(
        self, *, is_evaluation: bool, averages: Mapping[str, Any] | None = None
    ) -> MetricAverages:
        """Begin a pass over data; the loops call it.

        Args:
            is_evaluation: Whether nothing is trained.
            averages: The sums of its first part, where it goes on in the middle.
        """
        self._is_evaluating = self._is_in_step = is_evaluation
        self._averages = MetricAverages()
        if averages is not None:
            self._averages.load_state_dict(averages)
        self._logged.clear()
        return self._averages

    def end_pass(self) -> None:
        """End it; the loops call it."""
        self._is_in_step = False

    def start_train_step(self) -> None:
        """Forget what the step before updated; the train loop calls it."""
        self._is_in_step = True
        self._stepped.clear()
        self._blocks.clear()

    def take_rank_share(self, share: RankShare) -> None:
        """Take this process's part of the batch at hand; the loops call it before its step."""
        self._is_counted = share.is_counted
        for unit in self._units.values():
            unit.loss_weight = share.weight

    def flush(self) -> None:
        """Update from windows that the end of the epoch cuts short; the train loop calls it."""
        for unit in self._units.values():
            if unit.flush():
                self._stepped.add(unit.name)

    def take_train_result(self, result: Any) -> None:
        """Use what ``train_step`` returned: a loss to optimize, metrics, or nothing.

        Where ``run.optimize`` blocks ran and no metrics are returned, the metrics are their losses,
        as ``loss_<optimizer>``. A step with a loss that is skipped is left out of all averages.

        Raises:
            TaskError: The result fits neither one optimizer nor ``run.optimize`` blocks.
        """
        self._is_in_step = False
        if self._blocks:
            self._check_entered()
            if result is not None and not isinstance(result, Mapping):
                raise TaskError(
                    f"train_step returns {type(result).__name__}, and run.optimize took its losses "
                    "already",
                    found=result,
                    fix="return nothing or a dict of metrics; a further loss needs a block",
                )
            if any(block.is_skipped for block in self._blocks):
                self._logged.clear()
                return
            losses = {f"loss_{b.name}": b.total for b in self._blocks if b.total is not None}
            self._add_metrics(losses if result is None else result)
            self._add_logged()
            return
        metrics = result if isinstance(result, Mapping) else {"loss": result}
        loss = metrics.get("loss")
        if loss is None or len(self._units) != 1:
            raise self._no_loss_error(result)
        (unit,) = self._units.values()
        if not unit.backward(loss):
            self._logged.clear()
            return
        if unit.close_micro_step():
            self._stepped.add(unit.name)
        self._add_metrics(metrics)
        self._add_logged()

    def take_eval_result(self, result: Any) -> None:
        """Use what ``eval_step`` returned.

        Raises:
            TaskError: It is neither a dict of metrics nor a number.
        """
        if isinstance(result, Mapping):
            self._add_metrics(result)
        elif result is None and not self._logged:
            raise TaskError(
                "eval_step returns None", fix='return {"loss": loss}, or use run.log(name, value)'
            )
        elif result is not None:
            self._add_metrics({"loss": result})
        self._add_logged()

    @property
    def stepped(self) -> frozenset[str]:
        """Optimizers that this step updated."""
        return frozenset(self._stepped)

    def _check_entered(self) -> None:
        """Refuse a block without ``with``: its loss would train nothing."""
        if self._blocks and not (self._blocks[-1].is_open or self._blocks[-1].is_over):
            name = self._blocks[-1].name
            raise TaskError(
                f"run.optimize({name!r}) is called without 'with', so nothing would learn",
                found=name,
                fix=f'with run.optimize("{name}") as step: step.loss = ...',
            )

    def _add_metrics(self, metrics: Mapping[str, Any]) -> None:
        averages, size = self._averages, self.batch_size if self._is_counted else 0
        for name, value in metrics.items():
            averages.add(name, value, size)
        if self._step_metrics is not None and not self._is_evaluating:
            self._step_metrics |= {
                name: value.detach() if isinstance(value, torch.Tensor) else value
                for name, value in metrics.items()
            }

    def _add_logged(self) -> None:
        for name, value in self._logged:
            self._add_metrics({name: value})
        self._logged.clear()

    def _no_loss_error(self, result: Any) -> TaskError:
        if len(self._units) > 1:
            names = list(self._units)
            return TaskError(
                f"there are optimizers {list_words(names)}, and train_step used none of them",
                fix=f'with run.optimize("{names[0]}") as step: step.loss = ...',
            )
        if isinstance(result, Mapping) and "loss" in result:
            return TaskError("train_step returns None as 'loss'", fix="give the loss tensor")
        if isinstance(result, Mapping):
            return TaskError(
                f"train_step returns a dict without 'loss'; it has: {list_words(result)}",
                found=list(result),
                closest=closest_match("loss", map(str, result)),
                fix='return {"loss": loss, ...}',
            )
        return TaskError("train_step returns None", fix='return the loss, or {"loss": loss, ...}')
