"""Collective calls that gradients pass through."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pymodules_core.errors import ProcessesError


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes.

    The sum is its own adjoint: the gradient of the losses of all processes together is the sum of
    their gradients. ``torch.distributed.nn`` has the same and is deprecated in torch 2.13.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004  torch's signature
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: ARG004  torch's signature
        return sum_over_ranks(*gradients)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; gradients come back summed, too."""
    total: Tensor = _SumOverRanks.apply(tensor)  # type: ignore[no-untyped-call]  # torch's
    return total


def refuse_different_rows(forms: Sequence[tuple[tuple[int, ...], str, bool]]) -> None:
    """Refuse to gather rows of different tensors.

    Args:
        forms: By rank, the shape of a row, the dtype, and whether the tensor requires a gradient.

    Raises:
        ProcessesError: They differ.
    """
    if len(set(forms)) == 1:
        return
    shown = "; ".join(
        f"process {rank}: shape (rows{''.join(f', {size}' for size in shape)}), {dtype}, "
        f"{'with' if has_graph else 'without'} a gradient"
        for rank, (shape, dtype, has_graph) in enumerate(forms)
    )
    raise ProcessesError(
        f"processes gather rows of tensors that differ: {shown}",
        found=forms,
        fix="compute the same in every process; only the number of rows may differ",
    )


def gather_rows(tensor: Tensor, counts: Sequence[int], rank: int) -> Tensor:
    """Return the rows of all processes, in the order of their ranks.

    A gradient of the result reaches the rows of each process, summed over the losses of all. An
    optimizer that averages gradients over processes then has that of their mean loss.

    Args:
        tensor: ``(counts[rank], ...)``, of one dtype and shape but for the rows in all processes,
            which all do or all do not require a gradient.
        counts: Rows of each process.
        rank: Of this process.

    Returns:
        ``(sum(counts), ...)``, the same in all processes.
    """
    if tensor.requires_grad and torch.is_grad_enabled():
        start = sum(counts[:rank])
        placed = tensor.new_zeros((sum(counts), *tensor.shape[1:]))
        placed[start : start + len(tensor)] = tensor
        return sum_over_ranks(placed)
    padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
