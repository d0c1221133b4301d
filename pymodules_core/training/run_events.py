"""Calls the run hooks of plugins and the task, and decides what a failure of one does."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from pymodules_core.discovery import PluginManager
from pymodules_core.discovery.implementations import HookImplementation
from pymodules_core.discovery.task_file import TASK_NAME
from pymodules_core.errors import PluginError
from pymodules_core.hookspecs import RunHooks
from pymodules_core.module_pool import derive_seed, random_stream
from pymodules_core.training.data.isolation import IsolatedStreams
from pymodules_core.training.run import Run
from pymodules_core.training.task import Task

logger = logging.getLogger("pymodules_core")

_STEP_HOOK = "train_step_finished"


class RunEvents:
    """The run hooks of one run, looked up once.

    Args:
        plugins: All plugins, the task among them.
        task: Gives the errors of its own hooks.
        run: Passed to every hook.
    """

    def __init__(self, plugins: PluginManager, task: Task, run: Run) -> None:
        self._task = task
        self._run = run
        self._muted: set[tuple[str, str]] = set()
        names = [name for name in vars(RunHooks) if not name.startswith("_")]
        self._implementations = {name: plugins.implementations(name) for name in names}
        self.has_step_hooks = bool(self._implementations[_STEP_HOOK])

    def emit(self, hook_name: str, **arguments: object) -> None:
        """Call a hook of every plugin, in the order of plugin names.

        Raises:
            PluginError: The hook of a plugin that provides a module of the pool failed.
            StepError: The task's own hook failed.
        """
        for implementation in self._implementations[hook_name]:
            name = implementation.record.name
            if (name, hook_name) in self._muted:
                continue
            if name == TASK_NAME:
                with self._task.errors(hook_name), self._streams(name, hook_name):
                    implementation({"run": self._run, **arguments})
            else:
                self._call_plugin(implementation, hook_name, arguments)

    def _streams(self, name: str, hook_name: str) -> AbstractContextManager[None]:
        """Give a hook random streams of its own: when it is called must not show in the training.

        A process that goes on with a run calls some hooks again, and a commit may reach the disk
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
        return IsolatedStreams(derive_seed(run.seed, *purpose))

    def _call_plugin(
        self, implementation: HookImplementation, hook_name: str, arguments: Mapping[str, object]
    ) -> None:
        record = implementation.record
        try:
            with self._streams(record.name, hook_name):
                implementation({"run": self._run, **arguments})
        except (Exception, SystemExit) as error:
            run = self._run
            reason = (
                f"{hook_name} of plugin {record.origin} raises {type(error).__name__}: {error} "
                f"(epoch {run.epoch}, step {run.step})"
            )
            if record.origin in run.module_pool.origins.values():
                raise PluginError(
                    reason,
                    found=record.name,
                    fix=f"it keeps modules of this run; report it to {record.origin.provider}",
                ) from error
            self._muted.add((record.name, hook_name))
            logger.warning("%s; training goes on without it", reason)
