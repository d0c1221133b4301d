"""Trains an experiment for a few real steps, with plugins that need not be installed."""

import json
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.checkpoints.tools.lineage import newest_record
from pymodules_core.discovery import PluginManager
from pymodules_core.errors import PluginError, RunInterruptedError
from pymodules_core.experiment import Experiment
from pymodules_core.module_pool import ModulePool
from pymodules_core.run_files import METRICS_FILE_NAME, checkpoints_dir
from pymodules_core.testing.under_test import register_objects
from pymodules_core.training.fit.run_loop import RunLoop
from pymodules_core.training.preparation.run_facts import provenance_of, run_facts
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.console import SilentPrinter
from pymodules_core.training.task.run import Run


@attrs.frozen(kw_only=True)
class TrainedSteps:
    """What training some steps left.

    Attributes:
        pool: The modules as they are now.
        run: The run; its ``step`` says how far it came.
        data_dir: What the run wrote.
        rows: The lines of ``metrics.jsonl``.
    """

    pool: ModulePool
    run: Run
    data_dir: Path
    rows: list[dict[str, Any]]


def train_steps(
    experiment: str | Path | Experiment,
    steps: int | None = None,
    *,
    plugins: Mapping[str, object] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TrainedSteps:
    """Train until so many steps are done, then save and stop as at a signal.

    Called again it resumes from there, so that a test can compare a run that was stopped with one
    that was not.

    Args:
        experiment: A name, a folder, or an opened experiment.
        steps: Train steps in all, those of earlier calls included; None trains to the end.
        plugins: Plugins by name, as an entry point has one: Python modules, classes or instances.
            Then no installed plugin is loaded; without, those that the experiment leaves in.
        overrides: Dotted keys laid over ``experiment.toml``.

    Raises:
        PluginError: A plugin that is given cannot be used.
        PymodulesError: What a run raises.
    """
    opened = Experiment.open(experiment, overrides=overrides)
    manager = PluginManager.for_experiment(opened, load_installed=plugins is None)
    for record in register_objects(manager, plugins or {}):
        if record.failure is not None:  # a test would pass without the plugin
            raise PluginError(
                f"plugin {record.origin}: {record.failure.stage} failed: {record.failure.reason}",
                found=record.name,
                fix=record.failure.remedy,
            ) from record.failure.error
    return train_steps_with(manager, opened, steps)


def train_steps_with(
    plugins: PluginManager, experiment: Experiment, steps: int | None
) -> TrainedSteps:
    """Train with the plugins of a manager that is used for nothing else; as ``train_steps``."""
    reporter = SilentPrinter()
    session = Session.prepare(
        experiment,
        data_dir=experiment.data_dir,
        reporter=reporter,
        plugins=plugins,
        load_weights=newest_record(experiment.path) is None,
    )
    facts = run_facts(session)
    folder = checkpoints_dir(experiment.path)
    with session.checkpoints(folder, provenance=provenance_of(facts)) as checkpoints:
        is_enough = None if steps is None else _StopAfter(steps, lambda: session.run.step)
        with suppress(RunInterruptedError):
            RunLoop(session, checkpoints, reporter, facts, signals=is_enough).execute()
    log = (experiment.data_dir / METRICS_FILE_NAME).read_text("utf-8")
    return TrainedSteps(
        pool=session.pool,
        run=session.run,
        data_dir=experiment.data_dir,
        rows=[json.loads(line) for line in log.splitlines()],
    )


class _StopAfter:
    """Asks a run to end as if a signal had come, once its steps are done."""

    def __init__(self, steps: int, done: Callable[[], int]) -> None:
        self._steps = steps
        self._done = done

    @property
    def received(self) -> signal.Signals | None:
        return signal.SIGINT if self._done() >= self._steps else None
