"""Calls the code of a package during a run: nothing around it changes, and failures are weighed."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from pymodules_core.discovery import PluginRecord
from pymodules_core.discovery.isolation.slow_calls import watch_call
from pymodules_core.discovery.plugins.records import explain
from pymodules_core.discovery.plugins.task_file import TASK_NAME
from pymodules_core.errors import PluginError
from pymodules_core.training.task.run import Run

logger = logging.getLogger("pymodules_core")

T = TypeVar("T")

# Before the first step: what is wrong with settings is known by then.
_FIRST_HOOKS = {"weights_ready", "run_started"}
# After the last step: everything is saved, and who waits in them keeps a machine for nothing.
_LAST_HOOKS = {"run_finished", "run_failed"}


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
        run = self._run
        limit_s = run.experiment.settings.plugins.close_timeout_s if name in _LAST_HOOKS else None
        culprit = f"{name} of plugin {record.origin}"
        try:
            with watch_call(culprit, ended_after_s=limit_s), surroundings:
                return function()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if name in _FIRST_HOOKS and record.blames_settings(error):
                raise
            what, fix = explain(error)
            reason = f"{culprit} raises {what} (epoch {run.epoch}, step {run.step})"
            if record.name == TASK_NAME or record.origin in run.module_pool.origins.values():
                fix = fix or f"it keeps modules of this run; report it to {record.origin.provider}"
                raise PluginError(reason, found=record.name, fix=fix) from error
            self._muted.add((record.name, name))
            rest = "the run ends" if name in _LAST_HOOKS else "training goes on"
            told = f"{reason}; {rest} without it" + (f"\n  fix: {fix}" if fix else "")
            logger.warning("%s", told, exc_info=error)
            return None
