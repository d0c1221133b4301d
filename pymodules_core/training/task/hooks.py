"""Calls the run hooks of plugins and the task."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pymodules_core.discovery import PluginManager, PluginRecord
from pymodules_core.discovery.isolation.global_state import guard_global_state
from pymodules_core.discovery.isolation.slow_calls import watch_call
from pymodules_core.discovery.plugins.records import fault_of
from pymodules_core.discovery.plugins.task_file import TASK_NAME
from pymodules_core.errors import PluginError, PymodulesError
from pymodules_core.hookspecs import RunHooks
from pymodules_core.rng import IsolatedStreams, derive_seed, random_stream
from pymodules_core.training.task.control import RunControl
from pymodules_core.training.task.run import Run
from pymodules_core.training.task.task import Task

if TYPE_CHECKING:
    from pymodules_core.checkpoints import CommitResult
    from pymodules_core.hookspecs import types
    from pymodules_core.module_pool import ModulePool
    from pymodules_core.training.optim.block import OptimizeBlock

    def _given(
        run: Run, pool: ModulePool, receipt: CommitResult, block: OptimizeBlock
    ) -> tuple[types.Run, types.ModulePool, types.CommitResult, types.OptimizeBlock]:
        """Let the type checker see that hooks are given what their signatures promise."""
        return run, pool, receipt, block


logger = logging.getLogger("pymodules_core")

T = TypeVar("T")

_STEP_HOOK = "train_step_finished"
# Before the first step: what is wrong with settings is known by then.
_FIRST_HOOKS = {"weights_ready", "run_started"}
# After the last step: everything is saved, and who waits in them keeps a machine for nothing.
_LAST_HOOKS = {"run_finished", "run_failed"}


class RunEvents:
    """The run hooks of one run, looked up once.

    Args:
        plugins: All plugins, the task among them.
        task: Gives the errors of its own hooks.
        run: Passed to every hook.
        control: Keeps of a step what hooks take.
    """

    def __init__(self, plugins: PluginManager, task: Task, run: Run, control: RunControl) -> None:
        self._task = task
        self._run = run
        self._calls = PluginCalls(run)
        self._step_streams = IsolatedStreams(0)
        # What failed the run is not called again while that is reported: it would fail again.
        self._failed: set[tuple[str, str]] = set()
        self._reported_changes: set[tuple[str, str]] = set()
        names = [name for name in vars(RunHooks) if not name.startswith("_")]
        # The task's first: what it changes in ``weights_ready`` packages see, and what it shows in
        # ``run_finished`` they still take.
        self._implementations = {
            name: sorted(
                plugins.implementations(name), key=lambda one: one.record.name != TASK_NAME
            )
            for name in names
        }
        self.has_step_hooks = bool(self._implementations[_STEP_HOOK])
        if any("metrics" in one.argument_names for one in self._implementations[_STEP_HOOK]):
            control.step_metrics = {}
        if self._implementations["image_logged"] and not run.rank:
            control.on_image = partial(self.emit, "image_logged")

    def emit(self, hook_name: str, **arguments: object) -> None:
        """Call a hook: the task's, then those of packages in the order of plugin names.

        Of ``run_failed`` all are called, whatever one raises: a logger has a file to close.

        Raises:
            PluginError: The hook of a plugin that provides a module of the pool failed.
            SettingsError: The hook of a plugin found its settings wrong.
            StepError: The task's own hook failed.
        """
        first: PymodulesError | None = None
        for implementation in self._implementations[hook_name]:
            record = implementation.record
            if (record.name, hook_name) in self._failed:
                continue
            call = partial(implementation, {"run": self._run, **arguments})
            try:
                self._call(record, hook_name, call)
            except PymodulesError as error:
                self._failed.add((record.name, hook_name))
                if hook_name != "run_failed":
                    raise
                first = first or error
        if first is not None:
            raise first

    def _call(self, record: PluginRecord, hook_name: str, call: Callable[[], object]) -> None:
        streams = self._streams(record.name, hook_name)
        if record.name == TASK_NAME:
            with self._task.errors(hook_name), streams:
                call()
        else:
            self._calls.call(record, hook_name, call, streams, reported=self._reported_changes)

    def _streams(self, name: str, hook_name: str) -> AbstractContextManager[None]:
        """Return a context with random streams of its own: a hook must not shift the training's.

        A process that resumes a run calls some hooks again, and a commit may reach the disk
        earlier or later. After a step everything is in its place: the task draws from the run's
        stream there, and packages from one that is cheap to make.
        """
        run = self._run
        purpose: tuple[str | int, ...] = ("hook", name, hook_name)
        if hook_name != "run_started":
            # What that one draws has to be the same in every process of a run: fixed noise, say.
            purpose = (*purpose, run.epoch, run.step)
        if hook_name != _STEP_HOOK:
            return random_stream(run.seed, *purpose)
        if name == TASK_NAME:
            return nullcontext()
        # One for all steps: to make a generator of numpy's takes five times as long as to seed it.
        self._step_streams.seed = derive_seed(run.seed, *purpose)
        return self._step_streams


class PluginCalls:
    """Calls plugins, and decides what a failure of one does.

    The run cannot do without one that provides a module of the pool, nor without its task. Any
    other is reported once, and the function that failed is not called again.

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
        streams: AbstractContextManager[None],
        *,
        reported: set[tuple[str, str]] | None = None,
    ) -> T | None:
        """Call one function of a plugin, and put back what it changes around the training.

        Args:
            record: Whose it is.
            name: The function, for messages.
            function: Calls it.
            streams: Random streams of its own, that it runs in.
            reported: As for ``guard_global_state``.

        Returns:
            What it gave; None where it failed, now or before.

        Raises:
            SettingsError: One of the first hooks finds the plugin's settings wrong, which is nobody
                else's to report.
            PluginError: The run needs the plugin.
        """
        if (record.name, name) in self._muted:
            return None
        run = self._run
        limit_s = run.experiment.settings.plugins.close_timeout_s if name in _LAST_HOOKS else None
        culprit = f"{name} of plugin {record.origin}"
        try:
            guard = guard_global_state(culprit, reported=reported)
            with watch_call(culprit, ended_after_s=limit_s), streams, guard:
                return function()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if name in _FIRST_HOOKS and record.blames_settings(error):
                raise
            what, fix = fault_of(error)
            reason = f"{culprit} raises {what} (epoch {run.epoch}, step {run.step})"
            if record.name == TASK_NAME or record.origin in run.module_pool.origins.values():
                fix = fix or f"it keeps modules of this run; report it to {record.origin.provider}"
                raise PluginError(reason, found=record.name, fix=fix) from error
            self._muted.add((record.name, name))
            rest = "the run ends" if name in _LAST_HOOKS else "training continues"
            report = f"{reason}; {rest} without it" + (f"\n  fix: {fix}" if fix else "")
            logger.warning("%s", report, exc_info=error)
            return None
