"""``RunControl``: what the loops keep of the step at hand, behind what ``Run`` shows."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from pymodules_core.errors import TaskError, closest_match, list_words
from pymodules_core.processes.group import Processes
from pymodules_core.training.data.rank_share import RankShare
from pymodules_core.training.optim.block import OptimizeBlock
from pymodules_core.training.optim.managed_optimizer import ManagedOptimizer
from pymodules_core.training.task.metrics import MetricAverages


class RunControl:
    """The step at hand: what it updates, logs and returns.

    Args:
        optimizers: The optimizers by name.
        processes: Who trains together.

    Attributes:
        optimizers: The optimizers by name.
        processes: Who trains together.
        averages: The metrics of the pass at hand, or of the last one.
        batch_size: Samples of the batch at hand.
        logged: Metrics of this batch that ``run.log`` was given.
        is_in_step: Whether a step of the task is at work.
        is_counted: Whether the samples of this process count, or another has the same ones.
        step_metrics: The metrics of the step at hand; None where no hook takes them.
        on_image: Called with the ``name`` and ``image`` of ``run.log_image``.
    """

    def __init__(self, optimizers: Mapping[str, ManagedOptimizer], processes: Processes) -> None:
        self.optimizers = optimizers
        self.processes = processes
        self.averages = MetricAverages()
        self.batch_size = 1
        self.logged: list[tuple[str, Any]] = []
        self.is_in_step = False
        self.is_counted = True
        self.step_metrics: dict[str, Any] | None = None
        self.on_image: Callable[..., None] | None = None
        self._is_evaluating = False
        self._stepped: set[str] = set()
        self._blocks: list[OptimizeBlock] = []

    def open_block(self, name: str) -> OptimizeBlock:
        """Build the block of ``run.optimize``.

        Raises:
            TaskError: No such optimizer, another block is not over yet, or nothing trains.
        """
        optimizer = self.optimizers.get(name)
        if optimizer is None:
            raise TaskError(
                f"run.optimize: there is no optimizer {name!r}; there are: "
                f"{list_words(self.optimizers)}",
                found=name,
                closest=closest_match(str(name), self.optimizers),
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
        block = OptimizeBlock(optimizer, self._stepped)
        self._blocks.append(block)
        return block

    def take_step_metrics(self) -> Mapping[str, Any]:
        """Return the metrics of the step at hand, and keep no tensor of it."""
        if self.step_metrics is None:
            return {}
        metrics, self.step_metrics = self.step_metrics, {}
        return metrics

    def start_pass(
        self, *, is_evaluation: bool, averages: Mapping[str, Any] | None = None
    ) -> MetricAverages:
        """Begin a pass over data.

        Args:
            is_evaluation: Whether nothing is trained.
            averages: The sums of its first batches, where it is resumed in the middle.
        """
        self._is_evaluating = self.is_in_step = is_evaluation
        self.averages = MetricAverages()
        if averages is not None:
            self.averages.load_state_dict(averages)
        self.logged.clear()
        return self.averages

    def end_pass(self) -> None:
        """End the pass."""
        self.is_in_step = False

    def start_train_step(self) -> None:
        """Forget what the step before updated."""
        self.is_in_step = True
        self._stepped.clear()
        self._blocks.clear()

    def take_rank_share(self, share: RankShare) -> None:
        """Take this process's share of the batch at hand, before its step."""
        self.is_counted = share.is_counted
        for optimizer in self.optimizers.values():
            optimizer.loss_weight = share.weight

    def flush(self) -> None:
        """Update from accumulation windows that the end of the epoch cuts short."""
        for optimizer in self.optimizers.values():
            if optimizer.flush():
                self._stepped.add(optimizer.name)

    def take_train_result(self, result: Any) -> None:
        """Use what ``train_step`` returned: a loss to optimize, metrics, or nothing.

        Where ``run.optimize`` blocks ran and no metrics are returned, the metrics are their losses,
        as ``loss_<optimizer>``. A step with a loss that is skipped is left out of all averages.

        Raises:
            TaskError: The result fits neither one optimizer nor ``run.optimize`` blocks.
        """
        self.is_in_step = False
        metrics = self._blocks_metrics(result) if self._blocks else self._optimize(result)
        if metrics is None:
            self.logged.clear()
        else:
            self._add_metrics(metrics)
            self._add_logged()

    def take_eval_result(self, result: Any) -> None:
        """Use what ``eval_step`` returned.

        Raises:
            TaskError: It is neither a dict of metrics nor a number.
        """
        if isinstance(result, Mapping):
            self._add_metrics(result)
        elif result is None and not self.logged:
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

    def _blocks_metrics(self, result: Any) -> Mapping[str, Any] | None:
        """Return the metrics of a step with blocks; None where a loss was skipped."""
        self._check_entered()
        if result is not None and not isinstance(result, Mapping):
            raise TaskError(
                f"train_step returns {type(result).__name__}, and run.optimize took its losses "
                "already",
                found=result,
                fix="return nothing or a dict of metrics; a further loss needs a block",
            )
        if any(block.is_skipped for block in self._blocks):
            return None
        if result is not None:
            return result
        return {f"loss_{b.name}": b.total for b in self._blocks if b.total is not None}

    def _optimize(self, result: Any) -> Mapping[str, Any] | None:
        """Update from the loss that the step returned; None where it was skipped."""
        metrics = result if isinstance(result, Mapping) else {"loss": result}
        loss = metrics.get("loss")
        if loss is None or len(self.optimizers) != 1:
            raise self._no_loss_error(result)
        (optimizer,) = self.optimizers.values()
        if not optimizer.backward(loss):
            return None
        if optimizer.close_micro_step():
            self._stepped.add(optimizer.name)
        return metrics

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
        averages, size = self.averages, self.batch_size if self.is_counted else 0
        for name, value in metrics.items():
            averages.add(name, value, size)
        if self.step_metrics is not None and not self._is_evaluating:
            self.step_metrics |= {name: detached(value) for name, value in metrics.items()}

    def _add_logged(self) -> None:
        for name, value in self.logged:
            self._add_metrics({name: value})
        self.logged.clear()

    def _no_loss_error(self, result: Any) -> TaskError:
        if len(self.optimizers) > 1:
            names = list(self.optimizers)
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


def detached(value: Any) -> Any:
    """Return a value without its graph where it is a tensor."""
    return value.detach() if isinstance(value, torch.Tensor) else value
