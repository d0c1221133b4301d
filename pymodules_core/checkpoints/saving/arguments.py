"""What callers of the checkpoint manager give, checked before it is used."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from pymodules_core.errors import CheckpointError, SettingsError, closest_match
from pymodules_core.names import FRZN, INIT, LAST, check_pool_name


def check_arguments(*, mode: str, min_delta: object, keep_epochs: Any, link: str) -> None:
    """Refuse arguments that would decide otherwise than they read.

    Raises:
        SettingsError: One is none of those there are.
    """
    for key, found, allowed in (("mode", mode, ("min", "max")), ("link", link, ("auto", "copy"))):
        if found not in allowed:
            raise SettingsError(
                f"{key}: expected {' or '.join(map(repr, allowed))}, got {found!r}",
                key=key,
                found=found,
                closest=closest_match(str(found), allowed),
                fix=f"{key}={allowed[0]!r}",
            )
    if not isinstance(min_delta, int | float) or not 0 <= min_delta < math.inf:
        raise SettingsError(
            f"min_delta: expected a finite number of at least 0, got {min_delta!r}",
            key="min_delta",
            found=min_delta,
            fix="min_delta=0.0",
        )
    is_int = isinstance(keep_epochs, int) and not isinstance(keep_epochs, bool)
    if keep_epochs != "all" and not (is_int and keep_epochs >= 1):
        raise SettingsError(
            f"keep_epochs: expected 'all' or a number of at least 1, got {keep_epochs!r}",
            key="keep_epochs",
            found=keep_epochs,
            fix="keep_epochs='all'",
        )


def check_pools(pools: Collection[str], *, has_state: bool) -> None:
    """Refuse what ``commit`` cannot write.

    Args:
        pools: The pools that it names.
        has_state: Whether it is given a training state.

    Raises:
        InvalidNameError: No such pool.
        CheckpointError: None, ``frzn`` or ``init`` is named, or there is a state without ``last``.
    """
    if not pools:
        raise CheckpointError("commit() names no pool", fix='commit("last", epoch=epoch)')
    for name in pools:
        check_pool_name(name)
        if name in {FRZN, INIT}:
            raise CheckpointError(
                f"pool {name!r} is written by start() only", found=name, fix="commit 'last'"
            )
    if has_state and LAST not in pools:
        raise CheckpointError(
            "a training state belongs to the weights of 'last', and commit() does not name it",
            found=list(pools),
            fix='commit("last", ..., state=state)',
        )


def metric_values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as numbers: a record keeps no tensors.

    Raises:
        CheckpointError: One is not a number.
    """
    values = {}
    for name, value in metrics.items():
        try:
            values[name] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"metric {name!r} is no number but {type(value).__name__}",
                key=name,
                found=type(value).__name__,
                fix="give one number: its mean, say",
            ) from error
    return values
