"""The backward of one optimizer's losses, and what torch does not say about it."""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import torch
from torch.nn import Parameter

from pymodules_core.errors import NonFiniteLossError, TaskError
from pymodules_core.processes.dtensor import local_tensor
from pymodules_core.processes.group import Processes

logger = logging.getLogger("pymodules_core")


def check_loss(loss: Any, name: str) -> None:
    """Refuse what nothing can be learned from.

    Args:
        loss: What a step returned.
        name: Of the optimizer.

    Raises:
        TaskError: It is not a tensor of one element with a graph.
    """
    if not isinstance(loss, torch.Tensor):
        raise TaskError(
            f"the loss of optimizer {name!r} is {type(loss).__name__}, expected a tensor",
            found=loss,
            fix="give the loss tensor itself, not loss.item()"
            if isinstance(loss, int | float)
            else "give the tensor alone; other numbers are metrics",
        )
    if loss.numel() != 1:
        raise TaskError(
            f"the loss of optimizer {name!r} has shape {list(loss.shape)}, expected one element",
            found=list(loss.shape),
            fix="average it: loss.mean()",
        )
    if not loss.requires_grad:
        raise TaskError(
            f"the loss of optimizer {name!r} has no graph, so nothing would learn",
            fix="compute it from trained modules, without detach, item or torch.no_grad",
        )


@attrs.define(eq=False)
class FiniteCheck:
    """Refuses or skips losses of one optimizer that are NaN or infinite.

    On the CPU, and where they are skipped, each is checked at once. On CUDA ``check`` does so
    before each commit: no step has to wait for the device.

    Args:
        name: Of the optimizer.
        processes: Who trains together: all skip a loss that is not finite in any.
        skips: Skip them instead of raising.

    Attributes:
        skipped: How many were skipped.
    """

    _name: str
    _processes: Processes
    _skips: bool = attrs.field(kw_only=True)
    skipped: int = attrs.field(default=0, init=False)
    _unchecked: torch.Tensor | float = attrs.field(default=0.0, init=False)

    def accepts(self, loss: torch.Tensor) -> bool:
        """Return whether to train with a loss, False where it is skipped.

        Raises:
            NonFiniteLossError: It is not finite, and is not to be skipped.
        """
        if self._skips:
            (is_bad,) = self._processes.all_reduce_max([float(not math.isfinite(loss.item()))])
            self.skipped += bool(is_bad)
            return not is_bad
        if loss.device.type == "cpu":
            self._refuse(loss.item())
        else:
            # A sum stays non-finite once one of its terms is, and adding waits for nothing.
            self._unchecked = self._unchecked + loss.detach()
        return True

    def check(self) -> None:
        """Check the losses since the last check that were left on their device.

        Raises:
            NonFiniteLossError: One of them was NaN or infinite.
        """
        value, self._unchecked = float(self._unchecked), 0.0
        self._refuse(value)

    def _refuse(self, value: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the loss of optimizer {self._name!r} is {value}",
                found=value,
                fix='lower the learning rate, set clip_norm, or [train] on_nonfinite = "skip"',
            )


def warn_if_unreached(parameters: Iterable[Parameter], name: str) -> None:
    """Warn of a loss whose graph reaches no parameter of its optimizer.

    For the first update only: that a later one trains nothing may be meant.

    Args:
        parameters: The optimizer's, with the gradients of its losses.
        name: Of the optimizer.
    """
    if all(parameter.grad is None for parameter in parameters):
        logger.warning(
            "the loss of optimizer %r reaches none of its parameters: nothing learns. Fix: compute "
            "it from the modules whose parameters the optimizer has, without detach",
            name,
        )


def restricted_backward(
    loss: torch.Tensor, parameters: Sequence[Parameter], leaves: Sequence[Parameter], name: str
) -> None:
    """Compute the gradients of one optimizer's parameters, and of no others.

    Args:
        loss: One element, with a graph. What leads to no leaf in it is neither run nor freed.
        parameters: Those of the optimizer that require a gradient.
        leaves: Where graphs end for them: under FSDP2 other tensors, of whose sharded parameters
            torch would compute nothing, in silence.
        name: Of the optimizer.

    Raises:
        TaskError: The loss reaches none of them, or some lie behind a re-entrant checkpoint.
    """
    if not parameters:
        raise TaskError(
            f"no parameter of optimizer {name!r} requires a gradient, so nothing would learn",
            fix="leave out its block in this step, or call requires_grad_(True) before",
        )
    before = [(one.grad, _version(one.grad)) for one in parameters]
    torch.autograd.backward(loss, inputs=leaves)
    unreached = sum(
        one.grad is gradient and _version(gradient) == version
        for one, (gradient, version) in zip(parameters, before, strict=True)
    )
    if unreached:
        refuse_reentrant_checkpoints(loss, name)
    if unreached == len(parameters):
        raise TaskError(
            f"the loss of optimizer {name!r} reaches none of its parameters, so nothing would "
            "learn",
            fix="compute it from the modules whose parameters the optimizer has, without detach or "
            "torch.no_grad; or leave out its block in this step",
        )


def _version(gradient: torch.Tensor | None) -> int:
    """Return a count that grows where a backward adds to a gradient in place."""
    return 0 if gradient is None else local_tensor(gradient)._version


def refuse_reentrant_checkpoints(loss: torch.Tensor, name: str) -> None:
    """Refuse a graph with a re-entrant activation checkpoint.

    Where gradients are computed for some parameters only, torch passes over such a checkpoint: the
    parameters in it get no gradient, in silence.

    Args:
        loss: Its graph is walked.
        name: Of the optimizer.

    Raises:
        TaskError: There is one.
    """
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "CheckpointFunctionBackward":
            raise TaskError(
                f"the loss of optimizer {name!r} goes through a re-entrant checkpoint "
                "(torch.utils.checkpoint), which several optimizers cannot train through",
                fix="checkpoint(..., use_reentrant=False); for a transformers model "
                'gradient_checkpointing_enable({"use_reentrant": False})',
            )
        waiting += [parent for parent, _ in node.next_functions]
