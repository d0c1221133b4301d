"""Lets processes that exit quietly wait for the one that reports why.

A launcher ends all processes as soon as one of them ends. No torch is imported here: as long as
nobody has imported it, no process knows another one.
"""

import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

from pymodules_core.processes.environment import rank_info

# A store answers at once, unless its machine is gone: nobody waits for it.
_STORE_TIMEOUT = timedelta(seconds=10)


def mark_reported() -> None:
    """Notify the other processes that this one has reported what it failed with."""
    with suppress(RuntimeError, ValueError):  # there is no store, or it is gone
        common_store().set(common_key("reported"), "")


def wait_until_reported() -> None:
    """Return once the process that failed first has reported why, or is gone."""
    with suppress(RuntimeError, ValueError):  # the store is gone with the process that reports
        common_store().wait([common_key("reported")], _STORE_TIMEOUT)


def common_store() -> Any:
    """Return the store by which the processes found each other, with a short time-out.

    Returns:
        A ``torch.distributed.Store``.

    Raises:
        ValueError: They have found no store.
    """
    c10d = sys.modules.get("torch.distributed.distributed_c10d")
    if c10d is None:
        raise ValueError("torch is not imported")
    store = c10d._get_default_store()
    store.set_timeout(_STORE_TIMEOUT)
    return store


def common_key(name: str) -> str:
    """Return the key under which the processes of this start report a failure to each other."""
    # torchrun may keep the store of the processes that it started before these.
    return f"pymodules/failure/{name}/{rank_info().restarts}"
