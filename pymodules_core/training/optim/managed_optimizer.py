"""One optimizer with all that belongs to it: accumulation, clipping, scaling, its schedule."""

from operator import is_
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch.optim import Optimizer

from pymodules_core.processes.dtensor import distribute_like
from pymodules_core.processes.group import Processes
from pymodules_core.settings import OptimizerSettings
from pymodules_core.training.optim.backward import (
    FiniteCheck,
    check_loss,
    refuse_reentrant_checkpoints,
    restricted_backward,
    warn_if_unreached,
)
from pymodules_core.training.optim.named_state import parameters_of
from pymodules_core.training.optim.precision import Precision
from pymodules_core.training.optim.resume import OptimizerResume
from pymodules_core.training.optim.schedule import Schedule
from pymodules_core.training.parallel.gradients import (
    ShardedGradScaler,
    clip_norm,
    clip_value,
    scale_gradients,
)
from pymodules_core.training.parallel.optimizer_modules import OptimizerModules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor
    from torch.nn import Parameter


@attrs.define(kw_only=True, eq=False, slots=False)
class ManagedOptimizer:
    """One optimizer with its settings, scheduler and open accumulation window.

    Args:
        name: The name the task gave it.
        optimizer: The optimizer.
        is_single: The task has no other, from whose parameters its losses have to be kept.
        check_ownership: Refuses parameter groups, of any optimizer, that a run could not use.
        settings: Accumulation, clipping, schedule.
        scheduler: Its scheduler.
        precision: Autocast of the steps.
        skip_nonfinite: Leave out an update whose loss is not finite instead of raising.
        processes: Who trains together.
        modules: The modules that it trains, as the processes share them.

    Attributes:
        loss_weight: What the losses of the batch at hand are multiplied by.
    """

    name: str
    optimizer: Optimizer
    check_ownership: "Callable[[], None]"
    _is_single: bool
    _settings: OptimizerSettings
    _scheduler: Any
    _precision: Precision
    _skip_nonfinite: bool
    _processes: Processes
    _modules: OptimizerModules
    loss_weight: float = attrs.field(default=1.0, init=False)

    def __attrs_post_init__(self) -> None:
        name, optimizer, schedule = self.name, self.optimizer, self._settings.schedule
        self._parameters = parameters_of(optimizer)
        self._schedule = Schedule(name, optimizer, self._scheduler, follows=schedule)
        self._window = 0
        self._is_graph_known = False
        self._resume = OptimizerResume(name, optimizer, self._scheduler, schedule=schedule)
        self._finite_check = FiniteCheck(name, self._processes, skips=self._skip_nonfinite)
        self._scaler: torch.amp.GradScaler | None = None
        if self._precision.dtype is torch.float16:  # gradients underflow without a scaled loss
            kind = ShardedGradScaler if self._modules.has_shards else torch.amp.GradScaler
            self._scaler = kind(self._precision.device_type)

    @property
    def skipped_steps(self) -> int:
        """Losses left out because they were not finite."""
        return self._finite_check.skipped

    @property
    def learning_rate(self) -> float:
        """The rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def is_window_open(self) -> bool:
        """Whether gradients wait for the steps that complete an update."""
        return self._window > 0

    @property
    def window_length(self) -> int:
        """How many steps an update takes."""
        return self._settings.accumulate

    @property
    def takes_one_backward(self) -> bool:
        """Whether the losses of a block have to be added up: DDP averages in one backward."""
        return bool(self._modules.replicas)

    def check_groups(self) -> None:
        """Check its parameter groups, which a task may have changed.

        A parameter that was added has the gradients of the next backward, and no others: those
        that it may have from before are of losses that trained nothing, and no checkpoint has them.

        Raises:
            TaskError: A run could not use them.
        """
        parameters, known = parameters_of(self.optimizer), self._parameters
        if len(parameters) == len(known) and all(map(is_, parameters, known)):
            return
        self.check_ownership()
        for one in set(parameters).difference(known):
            one.grad = None
        self._parameters = parameters

    def start_step(self) -> None:
        """Begin a train step: DDP has to know beforehand whether to average gradients."""
        self._modules.start_step(is_synced=self._window + 1 >= self._settings.accumulate)

    def end_step(self) -> None:
        """End it."""
        self._modules.end_step()

    def backward(self, loss: "Tensor") -> bool:
        """Add a loss to the open window; return False where it was not finite and is skipped.

        Args:
            loss: One element, with a graph.

        Raises:
            TaskError: The loss is not a tensor of one element with a graph.
            NonFiniteLossError: It is NaN or infinite, on the CPU; on CUDA ``check_finite`` raises.
        """
        check_loss(loss, self.name)
        self.check_groups()
        if not self._finite_check.accepts(loss):
            return False
        if self._settings.accumulate > 1:
            loss = loss / self._settings.accumulate
        if self.loss_weight != 1.0:
            loss = loss * self.loss_weight
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        # The step's autocast is still on here, and backward must run without it.
        with self._precision.autocast(is_enabled=False):
            self._backward(loss)
        self._modules.check_backward()
        return True

    def _backward(self, loss: "Tensor") -> None:
        """Compute gradients for the parameters of this optimizer and of no other."""
        if self._is_single:
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            return
        if not self._is_graph_known:
            refuse_reentrant_checkpoints(loss, self.name)
        own = [one for one in self._parameters if one.requires_grad]
        restricted_backward(loss, own, self._modules.leaves(own), self.name)

    def check_finite(self) -> None:
        """Check the losses since the last check that were left on their device.

        Raises:
            NonFiniteLossError: One of them was NaN or infinite.
        """
        self._finite_check.check()

    def close_micro_step(self) -> bool:
        """Count a micro step, update at the end of the window, and return whether it updated."""
        self._window += 1
        if self._window < self._settings.accumulate:
            return False
        self._is_graph_known = True
        self.check_groups()
        self._modules.average_unaveraged(self._parameters)
        return self.update()

    def drop_window(self) -> None:
        """Drop the gradients of the open window: one of a block's losses was not finite.

        Those of the block's other losses are among them and cannot be taken out.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self._window = 0

    def average_window(self) -> None:
        """Make the gradients that wait in the open window the same in all processes."""
        self._modules.average(self._parameters)

    def flush(self) -> bool:
        """Update from a window that the epoch's end cut short, at its own mean."""
        if not self._window:
            return False
        self.check_groups()
        self.average_window()
        scale = self._settings.accumulate / self._window
        if scale != 1:
            scale_gradients(self._parameters, scale)
        return self.update()

    def update(self) -> bool:
        """Unscale, clip, step, zero, and step the scheduler where it follows updates."""
        scaler, parameters = self._scaler, self._parameters
        if not self._resume.updates and self._processes.is_first:
            warn_if_unreached(parameters, self.name)
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        if self._settings.clip_norm is not None:
            clip_norm(parameters, self._settings.clip_norm)
        if self._settings.clip_value is not None:
            clip_value(parameters, self._settings.clip_value)
        stepped = True
        if scaler is None:
            self.optimizer.step()
        else:
            scale = scaler.get_scale()
            scaler.step(self.optimizer)
            scaler.update()
            # A lower scale means infinite gradients, and an update that the scaler left out.
            stepped = scaler.get_scale() >= scale
        self.optimizer.zero_grad(set_to_none=True)
        self._modules.release(self._parameters)
        self._window = 0
        if self._precision.dtype is not None:
            # Autocast keeps low-precision copies of weights, which are stale from here on.
            torch.clear_autocast_cache()
        if stepped:
            self._resume.updates += 1
            self._schedule.end_update()
        return stepped

    def end_epoch(self, monitored: float | None) -> None:
        """Step a scheduler that follows epochs; ``ReduceLROnPlateau`` gets the monitored metric."""
        self._resume.epochs += 1
        self._schedule.end_epoch(monitored, has_updated=self._resume.updates > 0)

    def state_dict(self, names: "Mapping[Parameter, str]") -> dict[str, Any]:
        """Return all that the next update depends on, the open window's gradients included.

        Args:
            names: The name of each parameter of the pool.

        Raises:
            TaskError: The optimizer or scheduler keeps what a checkpoint cannot hold.
        """
        self.check_groups()
        return {
            **self._resume.state_dict(names),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "window": self._window,
            "gradients": {
                names[p]: p.grad for p in self._parameters if self._window and p.grad is not None
            },
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(
        self, state: "Mapping[str, Any]", names: "Mapping[Parameter, str]"
    ) -> list[str]:
        """Load what ``state_dict`` returned.

        What the task makes otherwise than when the run began is reported and stays.

        Args:
            state: The state.
            names: The name of each parameter of the pool.

        Returns:
            What could not be restored, a line each.

        Raises:
            TaskError: The optimizer or scheduler does not take it.
        """
        lost = self._resume.load_state_dict(state, names)
        self._parameters = parameters_of(self.optimizer)
        if self._scaler is not None and state["scaler"] is not None:
            self._scaler.load_state_dict(dict(state["scaler"]))
        self._window = state["window"]
        self._finite_check.skipped = state["skipped_steps"]
        for parameter in self._parameters:
            gradient = state["gradients"].get(names[parameter])
            parameter.grad = None if gradient is None else distribute_like(gradient, parameter)
        return lost
