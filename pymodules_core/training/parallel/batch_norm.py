"""Batch norm whose statistics are those of the batch of all processes together."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pymodules_core.processes.autograd_collectives import sum_over_ranks

if TYPE_CHECKING:
    from collections.abc import Callable


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Make all batch norms of a module take their statistics over all processes.

    Parameters and buffers stay the objects they are. On CUDA torch's own does it, which has no
    implementation for the CPU.

    Args:
        module: Changed in place, unless it is a batch norm itself.

    Returns:
        The module.
    """
    if any(tensor.is_cuda for tensor in module.parameters()):
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(module)
    for child in module.modules():
        if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
            child.__class__ = _synchronised(type(child))
    return module


def _synchronised(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    # Under its own name: a module shows as what its file made it.
    return type(kind.__name__, (_SyncedForward, kind), {"__module__": kind.__module__})


class _SyncedForward(_BatchNorm):
    """Puts a forward over all processes before that of a batch norm.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 1, with mean and variance
    over the batch of all processes. The variance is taken around the common mean, in a second pass:
    the difference of two sums of squares would lose digits.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Normalise ``(batch, channels, ...)`` in any float dtype."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]  # torch's
        axes = [0, *range(2, input.dim())]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        # Float32 at least: under autocast sums of half precision would lose what they sum.
        values = input.float() if input.dtype in {torch.float16, torch.bfloat16} else input
        count = values.new_tensor([values.numel() / max(values.shape[1], 1)])
        sums = sum_over_ranks(torch.cat([values.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = values - mean.view(shape)
        variance = sum_over_ranks(centred.square().sum(axes)) / total
        self._move_running_statistics(mean.detach(), variance.detach(), total)
        result: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)

    @torch.no_grad()
    def _move_running_statistics(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if momentum is None:  # a plain average over all batches
                momentum = 1.0 / float(self.num_batches_tracked)
        if momentum is None:
            return
        unbiased = variance * (total / (total - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
