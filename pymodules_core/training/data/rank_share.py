"""Which samples of a batch are whose, where several processes train it together.

A batch has the samples that it would have in one process; each process gets a run of them, and
what it computes counts by how many they are. So the same batches are trained whatever the number
of processes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from pymodules_core.processes.environment import RankInfo


@attrs.frozen
class RankShare:
    """What one process has of a batch.

    Attributes:
        weight: What its mean loss is multiplied by, so that the mean over all processes is the
            mean over all samples.
        is_counted: Whether its metrics count; where all have the same samples only the first
            one's do.
    """

    weight: float = 1.0
    is_counted: bool = True


WHOLE = RankShare()


def split_batches(
    batches: Iterable[Sequence[Any]], ranks: RankInfo, *, merges: bool
) -> Iterator[tuple[Sequence[Any], RankShare]]:
    """Yield what this process has of each batch.

    A batch of fewer samples than there are processes cannot be split. With ``merges`` it is joined
    to the one before, which evaluation does not mind; else every process gets all of it.

    Args:
        batches: The indices of each batch, the same in every process.
        ranks: Which process this is.
        merges: Join batches that are too small.
    """
    held: list[Any] | None = None
    for batch in batches:
        if not merges:
            yield _split(batch, ranks)
        elif held is None:
            held = list(batch)
        elif len(batch) < ranks.size:
            held += batch
        else:
            yield _split(held, ranks)
            held = list(batch)
    if held is not None:
        yield _split(held, ranks)


def merged_length(samples: int, batch_size: int, batches: int, ranks: RankInfo) -> int:
    """Return how many batches ``split_batches`` merges those of a dataset into."""
    rest = samples - (batches - 1) * batch_size
    return batches - 1 if batches > 1 and rest < ranks.size else batches


def _split(batch: Sequence[Any], ranks: RankInfo) -> tuple[Sequence[Any], RankShare]:
    count, size = len(batch), ranks.size
    if count < size:
        return batch, RankShare(1.0, is_counted=ranks.is_first)
    start, stop = (count * rank // size for rank in (ranks.rank, ranks.rank + 1))
    return batch[start:stop], RankShare((stop - start) * size / count)
