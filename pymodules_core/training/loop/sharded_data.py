"""The batches of an epoch for one of several processes, and data that is sharded by itself.

Of sharded data nobody knows how many batches the others have: all go through it in lockstep.
Training ends with the first process that has none left, since each update needs all; evaluation
continues until all have none.
"""

import logging
from collections.abc import Iterator
from itertools import count
from typing import Any

from pymodules_core.checkpoints.file_format.digest import memory_of
from pymodules_core.checkpoints.file_format.state_dict import tensors_in
from pymodules_core.checkpoints.store.checksums import fingerprint
from pymodules_core.errors import TaskError
from pymodules_core.processes.group import Processes
from pymodules_core.training.data import Batches
from pymodules_core.training.data.rank_share import WHOLE, RankShare
from pymodules_core.training.task.control import RunControl
from pymodules_core.training.task.device import batch_length

logger = logging.getLogger("pymodules_core")

NO_BATCH = object()


def batches_of_epoch(
    batches: Batches,
    control: RunControl,
    processes: Processes,
    *,
    epoch: int,
    phase: str,
    done: int,
    has_shards: bool,
) -> Iterator[Any]:
    """Return what this process has of the batches of the epoch at hand.

    Args:
        batches: Of the phase.
        control: Is given the share that this process has of each batch.
        processes: Who trains together.
        epoch: The epoch.
        phase: ``train`` or ``eval``.
        done: Batches of it that were trained already.
        has_shards: Evaluation needs all processes, too.
    """
    own = batches.epoch(epoch, done=done)
    if processes.is_alone:
        return own
    if not batches.is_sharded:
        return _with_rank_shares(own, batches, control)
    compares, batches.was_compared = not batches.was_compared, True
    return lockstep(
        own,
        control,
        processes,
        epoch=epoch,
        name=f"{phase}_data",
        is_training=phase == "train",
        has_shards=has_shards,
        compares=compares,
    )


def _with_rank_shares(own: Iterator[Any], batches: Batches, control: RunControl) -> Iterator[Any]:
    for batch in own:
        control.take_rank_share(batches.take_rank_share())
        yield batch


def lockstep(
    batches: Iterator[Any],
    control: RunControl,
    processes: Processes,
    *,
    epoch: int,
    name: str,
    is_training: bool,
    has_shards: bool,
    compares: bool,
) -> Iterator[Any]:
    """Yield the batches of this process while the others have some.

    Args:
        batches: Its own.
        control: Is given the share of all samples that a batch is.
        processes: Who iterates together.
        epoch: The epoch, for messages.
        name: The function that returned the data.
        is_training: End with the first process that has no batch left.
        has_shards: Evaluation needs all processes, too.
        compares: Check whether all have the same first batch.

    Yields:
        Batches; ``NO_BATCH`` where only others have one.

    Raises:
        TaskError: Only some have one, and evaluation needs all.
    """
    for number in count():
        batch = next(batches, NO_BATCH)
        samples = 0 if batch is NO_BATCH else batch_length(batch)
        ended, all_samples = processes.all_reduce_sum([batch is NO_BATCH, samples])
        if ended == processes.size:
            return
        if ended and is_training:
            logger.warning(
                "%s has more batches in some processes than in others: epoch %d ends after %d",
                name,
                epoch,
                number,
            )
            return
        if ended and has_shards:
            raise TaskError(
                f"{name} has more batches in some processes than in others, and modules of "
                'parallel "fsdp" compute in all at once',
                key=name,
                fix='give each process as many batches, or let the modules be parallel = "ddp"',
            )
        if compares and not ended:
            _warn_if_equal(batch, processes, name)
        compares = False
        control.take_rank_share(_share(samples, all_samples, processes.size))
        yield batch


def _share(samples: float, all_samples: float, size: int) -> RankShare:
    return RankShare(samples * size / all_samples) if all_samples else WHOLE


def _warn_if_equal(batch: Any, processes: Processes, name: str) -> None:
    """Warn of data that is declared as sharded, and is the same in all processes."""
    own = [fingerprint(memory_of(tensor)) for tensor in tensors_in(batch)]
    found = processes.gather(own)
    if own and all(one == found[0] for one in found):
        logger.warning(
            "%s gives all %d processes the same first batch. Fix: give each its own part, by the "
            "arguments rank and world_size of %s",
            name,
            processes.size,
            name,
        )
