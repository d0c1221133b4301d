"""Calls the code of a package during a run: nothing around it changes, and failures are weighed."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from pymodules_core.discovery import PluginRecord
from pymodules_core.discovery.task_file import TASK_NAME
from pymodules_core.errors import PluginError
from pymodules_core.training.run import Run

logger = logging.getLogger("pymodules_core")

T = TypeVar("T")

# Before the first step: what is wrong with settings is known by then.
_FIRST_HOOKS = {"weights_ready", "run_started"}


class PluginCalls:
    """Calls plugins, and decides what a failure of one does.

    The run cannot do without one that provides a module of the pool, nor without its task. Any
    other is told once, and the function that failed is not called again.

    Args:
        run: The run; its pool says who provides.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._muted: set[tuple[str, str]] = set()

    def call(
        self,
        record: PluginRecord,
        name: str,
        function: Callable[[], T],
        surroundings: AbstractContextManager[object],
    ) -> T | None:
        """Call one function of a plugin.

        Args:
            record: Whose it is.
            name: The function, for messages.
            function: Calls it.
            surroundings: What it runs in: random streams of its own, for one.

        Returns:
            What it gave; None where it failed, now or before.

        Raises:
            SettingsError: One of the first hooks finds the plugin's settings wrong, which is nobody
                else's to tell.
            PluginError: The run needs the plugin.
        """
        if (record.name, name) in self._muted:
            return None
        try:
            with surroundings:
                return function()
        except (Exception, SystemExit) as error:
            run = self._run
            if name in _FIRST_HOOKS and record.blames_settings(error):
                raise
            reason = (
                f"{name} of plugin {record.origin} raises {type(error).__name__}: {error} "
                f"(epoch {run.epoch}, step {run.step})"
            )
            if record.name == TASK_NAME or record.origin in run.module_pool.origins.values():
                raise PluginError(
                    reason,
                    found=record.name,
                    fix=f"it keeps modules of this run; report it to {record.origin.provider}",
                ) from error
            self._muted.add((record.name, name))
            logger.warning("%s; training goes on without it", reason)
            return None
