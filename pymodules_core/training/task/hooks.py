"""Calls the run hooks of plugins and the task."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from pymodules_core.discovery import PluginManager, PluginRecord
from pymodules_core.discovery.isolation.global_state import guard_global_state
from pymodules_core.discovery.plugins.task_file import TASK_NAME
from pymodules_core.errors import PymodulesError
from pymodules_core.hookspecs import RunHooks
from pymodules_core.module_pool import derive_seed, random_stream
from pymodules_core.rng import IsolatedStreams
from pymodules_core.training.task.plugin_calls import PluginCalls
from pymodules_core.training.task.run import Run
from pymodules_core.training.task.task import Task

_STEP_HOOK = "train_step_finished"
_LAST_HOOK = "run_failed"


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
        self._calls = PluginCalls(run)
        self._step_streams = IsolatedStreams(0)
        # What failed the run is not called again while that is told: it would fail again.
        self._failed: set[tuple[str, str]] = set()
        self._told_changes: set[tuple[str, str]] = set()
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
        run.connect_hooks(
            keeps_step_metrics=any(
                "metrics" in one.argument_names for one in self._implementations[_STEP_HOOK]
            ),
            on_image=partial(self.emit, "image_logged")
            if self._implementations["image_logged"] and not run.rank
            else None,
        )

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
                if hook_name != _LAST_HOOK:
                    raise
                first = first or error
        if first is not None:
            raise first

    def _call(self, record: PluginRecord, hook_name: str, call: Callable[[], object]) -> None:
        if record.name == TASK_NAME:
            with self._task.errors(hook_name), self._streams(record.name, hook_name):
                call()
        else:
            self._calls.call(record, hook_name, call, self._surroundings(record, hook_name))

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
        # One for all steps: to make a generator of numpy's takes five times as long as to seed it.
        self._step_streams.seed = derive_seed(run.seed, *purpose)
        return self._step_streams

    @contextmanager
    def _surroundings(self, record: PluginRecord, hook_name: str) -> Iterator[None]:
        """Put back what a package changes around the training; after a step a glance has to do."""
        guard = guard_global_state(
            f"{hook_name} of plugin {record.origin}",
            depth="step" if hook_name == _STEP_HOOK else "call",
            told=self._told_changes,
        )
        with self._streams(record.name, hook_name), guard:
            yield
