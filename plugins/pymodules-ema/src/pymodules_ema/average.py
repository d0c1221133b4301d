"""``Average``: one averaged copy of a module, and how it follows its source."""

import copy as copying
import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pymodules_core.errors import BuildError, list_words
from pymodules_core.plugin_api import check_initialized, local_tensor, unwrap

# Below the host's logger, which shows it as it shows its own.
logger = logging.getLogger("pymodules_core.ema")

_SMALL_DTYPES = {torch.float16, torch.bfloat16}

Pair: TypeAlias = tuple[Tensor, Tensor]
"""A tensor of the average and that of its source."""


def copy_for_average(source: nn.Module, *, name: str) -> nn.Module:
    """Copy a module, without its wrapper and without gradients.

    Args:
        source: The module, wrapped or not.
        name: Its name, for messages.

    Raises:
        UninitializedModuleError: A lazy parameter has no shape yet.
        BuildError: It cannot be copied.
    """
    check_initialized(source, name=name)
    try:
        copied = copying.deepcopy(unwrap(source))
    except Exception as error:
        raise BuildError(
            f"module {name!r} cannot be copied for its average: {type(error).__name__}: {error}",
            found=name,
            fix="keep nothing in the module that copy.deepcopy refuses: open files, locks, tensors "
            "with a gradient function (torch.nn.utils.parametrizations has none)",
        ) from error
    # A gradient that the source holds already would be copied, too.
    copied.zero_grad(set_to_none=True)
    return copied.requires_grad_(requires_grad=False).eval()


class Average:
    """Follows a module.

    Args:
        source: The module, wrapped or not.
        copy: What ``copy_for_average`` gave of it; changed in place from now on.
        name: The name of the average.
        averages_buffers: Average buffers of floating point, else copy them.

    Raises:
        BuildError: The source has other parameters than when it was copied.
    """

    def __init__(
        self, source: nn.Module, copy: nn.Module, *, name: str, averages_buffers: bool
    ) -> None:
        self.name = name
        self._source, self._copy = unwrap(source), copy
        self._averages_buffers = averages_buffers
        # Looked up once. Tied parameters come once from both, in the same order.
        theirs, ours = dict(self._source.named_parameters()), dict(copy.named_parameters())
        shapes = [{(key, one.shape) for key, one in side.items()} for side in (theirs, ours)]
        if others := sorted({key for key, _ in shapes[0] ^ shapes[1]}):
            raise BuildError(
                f"module {name!r} and its source differ in parameters: {list_words(others)}",
                found=others,
                fix="change a module where it is built, so that the average is a copy of all of it",
            )
        self._parameters = [(ours[key], theirs[key]) for key in theirs]
        self._owned = {id(parameter) for parameter in theirs.values()}
        self._floating, self._others = _split(self._parameters)
        children = dict(copy.named_modules())
        self._holders = [
            (there._buffers, children[path]._buffers)
            for path, there in self._source.named_modules()
            if there._buffers and path in children
        ]
        # Optimizer name to: number of its groups, and whether they hold a parameter of the source.
        self._trainers: dict[str, tuple[int, bool]] = {}
        self._warn_of_small_dtypes()

    def restart(self) -> None:
        """Take all of the source over as it is now."""
        self._copy.load_state_dict(self._source.state_dict())
        self.update(decay=0.0)

    def is_trained_by(self, name: str, optimizer: Optimizer) -> bool:
        """Return whether an optimizer holds a parameter of the source.

        Args:
            name: Name of the optimizer.
            optimizer: The optimizer; groups may be added to it at any time.
        """
        groups = optimizer.param_groups
        known = self._trainers.get(name)
        if known is None or known[0] != len(groups):
            owns = any(id(p) in self._owned for group in groups for p in group["params"])
            known = self._trainers[name] = (len(groups), owns)
        return known[1]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average towards its source: ``decay * average + (1 - decay) * source``.

        Args:
            decay: Share of the average that stays, from 0 to less than 1; 0 is a copy.
        """
        floating, others = self._floating, self._others
        buffers = self._buffers()
        if self._averages_buffers and decay:
            more, copied = _split(buffers)
            floating, others = [*floating, *more], [*others, *copied]
        else:
            others = [*others, *_grouped(buffers)]
        if not decay:
            floating, others = [], [*others, *floating]
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's own
        for ours, theirs in floating:
            average(ours, theirs, None)
        for ours, theirs in others:
            torch._foreach_copy_(ours, theirs)

    def _buffers(self) -> list[Pair]:
        """Return those that can be changed in place; looked up again, for modules replace them."""
        pairs = []
        for theirs, ours in self._holders:
            for key, source in theirs.items():
                mine = ours.get(key)
                if (
                    source is not None
                    and mine is not None
                    and (mine.shape, mine.dtype, mine.device)
                    == (source.shape, source.dtype, source.device)
                ):
                    pairs.append((mine, source))
                elif key in ours:
                    ours[key] = None if source is None else source.detach().clone()
        return pairs

    def _warn_of_small_dtypes(self) -> None:
        small = {str(ours.dtype) for ours, _ in self._parameters if ours.dtype in _SMALL_DTYPES}
        if small:
            logger.warning(
                "%s averages parameters of %s, which loses updates too small for that precision. "
                'Fix: keep weights in float32; [train] precision = "bf16" computes in bfloat16 and '
                "leaves them so",
                self.name,
                list_words(sorted(small)),
            )


Groups: TypeAlias = list[tuple[list[Tensor], list[Tensor]]]
"""Tensors of the average and of the source, each group of one device and dtype."""


def _split(pairs: Iterable[Pair]) -> tuple[Groups, Groups]:
    """Group what can be averaged, and the rest: integers and truth values."""
    pairs = list(pairs)
    return (
        _grouped(pair for pair in pairs if _is_averaged(pair[0])),
        _grouped(pair for pair in pairs if not _is_averaged(pair[0])),
    )


def _is_averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _grouped(pairs: Iterable[Pair]) -> Groups:
    # torch takes its fast path for one device and dtype only.
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]]
    groups = defaultdict(lambda: ([], []))
    for ours, theirs in pairs:
        # Of parameters that FSDP2 has sharded each process averages its part.
        group = groups[ours.device, ours.dtype]
        group[0].append(local_tensor(ours))
        group[1].append(local_tensor(theirs))
    return list(groups.values())
