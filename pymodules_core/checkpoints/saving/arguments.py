"""What callers of the checkpoint manager give, checked before it is used."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from pymodules_core.errors import CheckpointError, SettingsError, closest_match, list_words
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import FRZN, INIT, LAST, check_pool_name


def check_arguments(*, mode: str, min_delta: object, keep_epochs: Any, link: str) -> None:
    """Refuse arguments that would decide otherwise than they read.

    Raises:
        SettingsError: One is not allowed.
    """
    is_number = isinstance(keep_epochs, int) and not isinstance(keep_epochs, bool)
    is_count = keep_epochs == "all" or (is_number and keep_epochs >= 1)
    is_delta = isinstance(min_delta, int | float) and 0 <= min_delta < math.inf
    modes, links = ("min", "max"), ("auto", "copy")
    for key, found, is_right, expected, fix, choices in (
        ("mode", mode, mode in modes, "'min' or 'max'", "min", modes),
        ("link", link, link in links, "'auto' or 'copy'", "auto", links),
        ("min_delta", min_delta, is_delta, "a finite number of at least 0", 0.0, ()),
        ("keep_epochs", keep_epochs, is_count, "'all' or a number of at least 1", "all", ()),
    ):
        if not is_right:
            raise SettingsError(
                f"{key}: expected {expected}, got {found!r}",
                key=key,
                found=found,
                closest=closest_match(str(found), choices),
                fix=f"{key}={fix!r}",
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


def check_weights_loaded(pool: ModulePool) -> None:
    """Refuse to start a run with other weights than settings ask for.

    Raises:
        CheckpointError: Those of some module are still to be loaded.
    """
    if pending := sorted(pool.pending_weights):
        raise CheckpointError(
            f"initial weights are not loaded yet for: {list_words(pending)}",
            found=pending,
            fix="call pymodules_core.load_initial_weights(pool) first",
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
                f"metric {name!r} is not a number but {type(value).__name__}",
                key=name,
                found=type(value).__name__,
                fix="give one number: its mean, say",
            ) from error
    return values
