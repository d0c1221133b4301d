"""What an update does with gradients that are sharded, or are not averaged yet."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from pymodules_core.processes.dtensor import is_dtensor, local_tensor


def clip_norm(parameters: Sequence[Parameter], limit: float) -> None:
    """Scale gradients so that their norm, all of them together and in all processes, is limited.

    As ``torch.nn.utils.clip_grad_norm_``, which cannot take sharded and whole parameters at once.

    Args:
        parameters: Of any kind; those without a gradient are left out.
        limit: The largest L2 norm.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    sharded = [one for one in gradients if is_dtensor(one)]
    if not sharded:
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        return
    whole = [one for one in gradients if not is_dtensor(one)]
    shards = [local_tensor(one) for one in sharded]
    squared = _sum_of_squares(shards, shards[0].device)
    dist.all_reduce(squared)
    norm = (squared + _sum_of_squares(whole, squared.device)).sqrt()
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    for group in _by_kind([*shards, *whole]):
        dtype = torch.promote_types(group[0].dtype, torch.float32)
        torch._foreach_mul_(group, scale.to(device=group[0].device, dtype=dtype))


def clip_value(parameters: Iterable[Parameter], limit: float) -> None:
    """Limit each element of the gradients."""
    for group in _local_gradients(parameters):
        torch._foreach_clamp_min_(group, -limit)
        torch._foreach_clamp_max_(group, limit)


def scale_gradients(parameters: Iterable[Parameter], factor: float) -> None:
    """Multiply all gradients by a number."""
    for group in _local_gradients(parameters):
        torch._foreach_mul_(group, factor)


def average_gradients(parameters: Sequence[Parameter], size: int) -> None:
    """Average the gradients of unsharded parameters that nothing wraps over all processes.

    A parameter that has none in one process counts as zero there; one that has none in any keeps
    none.

    Args:
        parameters: The same in all processes.
        size: How many processes there are.
    """
    for group in _by_kind([p for p in parameters if p.requires_grad]):
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in group]
        has_one = gradients[0].new_tensor([float(one.grad is not None) for one in group])
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), has_one])
        dist.all_reduce(flat)
        *sums, counts = torch.split(flat, [one.numel() for one in gradients] + [len(group)])
        for parameter, total, count in zip(group, sums, counts.tolist(), strict=True):
            if count:
                _set_gradient(parameter, (total / size).view_as(parameter))


def _set_gradient(parameter: Tensor, value: Tensor) -> None:
    if parameter.grad is None:
        parameter.grad = value.clone()
    else:
        parameter.grad.copy_(value)


class ShardedGradScaler(torch.amp.GradScaler):
    """A scaler for sharded gradients: where one process finds infinity, all skip the step."""

    def _unscale_grads_(
        self,
        optimizer: torch.optim.Optimizer,
        inv_scale: Tensor,
        found_inf: Tensor,
        allow_fp16: bool,  # noqa: ARG002, FBT001  torch's signature
    ) -> dict[torch.device, Tensor]:
        parameters = chain(*(group["params"] for group in optimizer.param_groups))
        found: dict[torch.device, Tensor] = {}
        for group in _local_gradients(parameters):
            device = group[0].device
            flag = found.setdefault(device, found_inf.to(device, copy=True))
            torch._amp_foreach_non_finite_check_and_unscale_(group, flag, inv_scale.to(device))
        if not found:  # none here, but the others ask
            found[found_inf.device] = found_inf.clone()
        for flag in found.values():
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return found


def _local_gradients(parameters: Iterable[Parameter]) -> list[list[Tensor]]:
    """Return what this process holds of gradients, by dtype and device."""
    return _by_kind(local_tensor(p.grad) for p in parameters if p.grad is not None)


def _sum_of_squares(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    norms = [torch.stack(torch._foreach_norm(one)).to(device).double() for one in _by_kind(tensors)]
    return (
        torch.cat(norms).square().sum()
        if norms
        else torch.zeros((), dtype=torch.float64, device=device)
    )


def _by_kind(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group tensors by dtype and device."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.device, tensor.dtype].append(tensor)
    return list(groups.values())
