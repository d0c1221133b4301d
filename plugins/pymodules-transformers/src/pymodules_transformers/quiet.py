"""Keeps what transformers does to the process, the screen and the network within one block."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants
from transformers.utils import logging as transformers_logging

_NO_THREADS = "HF_DEACTIVATE_ASYNC_LOAD"


@contextmanager
def quiet_and_offline() -> Iterator[None]:
    """Run a block without progress bars, log lines, threads that outlive it, and requests.

    What is wrong with a config or with weights is reported by errors of this package. All is reset
    as it was, so that what a task does with transformers itself is not changed.
    """
    verbosity = transformers_logging.get_verbosity()
    hook = transformers_logging.set_tqdm_hook(_hide)
    was_offline = constants.HF_HUB_OFFLINE
    threads = os.environ.get(_NO_THREADS)
    transformers_logging.set_verbosity(logging.ERROR)
    # Read at each request; the variable of the same name is read once, at import.
    constants.HF_HUB_OFFLINE = True
    # Else the threads that copy weights end some time after the call.
    os.environ[_NO_THREADS] = "1"
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.set_tqdm_hook(hook)
        constants.HF_HUB_OFFLINE = was_offline
        if threads is None:
            del os.environ[_NO_THREADS]
        else:
            os.environ[_NO_THREADS] = threads


def _hide(_: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    # Not tqdm with disable=True: it starts its monitor thread anyway.
    empty: Callable[..., Any] = transformers_logging.EmptyTqdm
    return empty(*args, **kwargs)
