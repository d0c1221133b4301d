"""Sets up everything a run needs and writes nothing: errors are reported before a run exists."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from pymodules_core.checkpoints import CheckpointManager, LoadReport
from pymodules_core.discovery import PluginManager
from pymodules_core.errors import MonitorError, TaskError
from pymodules_core.experiment import Experiment
from pymodules_core.module_pool import ModulePool, compile_modules
from pymodules_core.processes.group import Processes
from pymodules_core.rng import derive_seed, seed_everything
from pymodules_core.run_files import METRICS_FILE_NAME
from pymodules_core.training.loop.epoch_loops import Loops
from pymodules_core.training.optim.accumulation import Accumulation
from pymodules_core.training.optim.block import manage_optimizers
from pymodules_core.training.optim.managed_optimizer import ManagedOptimizer
from pymodules_core.training.optim.precision import Precision
from pymodules_core.training.parallel import SharedModules
from pymodules_core.training.parallel.modules import make_mesh
from pymodules_core.training.preparation.building import (
    BuiltParts,
    check_optimizer_settings,
    make_batches,
    report_untrained,
)
from pymodules_core.training.preparation.rank_consistency import refuse_differences
from pymodules_core.training.run_output.console import ProgressPrinter
from pymodules_core.training.task.control import RunControl
from pymodules_core.training.task.hooks import RunEvents
from pymodules_core.training.task.run import Run

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@attrs.frozen(kw_only=True)
class Session:
    """The parts of one run, wired together.

    Attributes:
        experiment: The experiment.
        plugins: All plugins, the task among them.
        pool: The modules, on their device, with initial weights.
        reports: How the initial weights fitted.
        run: What steps and hooks see.
        optimizers: The optimizers by name.
        loops: Train and eval loop.
        events: Run hooks.
        processes: Who trains together.
    """

    experiment: Experiment
    plugins: PluginManager
    pool: ModulePool
    reports: list[LoadReport]
    run: Run
    optimizers: dict[str, ManagedOptimizer]
    loops: Loops
    events: RunEvents
    processes: Processes

    @classmethod
    def prepare(
        cls,
        experiment: Experiment,
        *,
        data_dir: Path,
        reporter: ProgressPrinter,
        plugins: PluginManager | None = None,
        load_installed: bool = True,
        load_weights: bool = True,
        processes: Processes | None = None,
    ) -> "Session":
        """Build the pool, load its weights, and set up task, data and optimizers.

        With several processes each does so, and they compare what came of it.

        Args:
            experiment: The experiment.
            data_dir: What the run calls ``run.data_dir``.
            reporter: Shows progress.
            plugins: Plugins loaded already, for this run only; else they are loaded here.
            load_installed: Whether to load installed plugins then.
            load_weights: Whether modules get the initial weights that settings ask for.
            processes: Who trains together; this one alone by default.

        Raises:
            ProcessesError: The processes differ, or a module cannot be shared among them.
            PymodulesError: Anything that keeps the run from starting.
        """
        processes = processes or Processes.alone()
        parts = processes.run_on_all(
            lambda: BuiltParts.build(
                experiment,
                plugins=plugins,
                load_installed=load_installed,
                load_weights=load_weights,
                ranks=processes.ranks,
            )
        )
        refuse_differences(processes, experiment, parts.plugins, parts.pool)
        mesh = make_mesh(parts.pool, processes, parts.device)
        return processes.run_on_all(
            lambda: cls._wire(
                experiment,
                parts,
                data_dir=data_dir,
                reporter=reporter,
                processes=processes,
                modules=SharedModules(parts.pool, processes, mesh=mesh),
            )
        )

    @classmethod
    def _wire(
        cls,
        experiment: Experiment,
        parts: "BuiltParts",
        *,
        data_dir: Path,
        reporter: ProgressPrinter,
        processes: Processes,
        modules: SharedModules,
    ) -> "Session":
        """Add to the pool what trains it."""
        settings, train = experiment.settings, experiment.settings.train
        pool, plugins, task, device = parts.pool, parts.plugins, parts.task, parts.device
        compile_modules(pool)
        # From here on the run draws from the global streams; what was built before has its own.
        seed_everything(derive_seed(train.seed, "run"))
        train_batches = make_batches(task, "train", experiment, device, processes)
        eval_batches = (
            make_batches(task, "eval", experiment, device, processes) if task.has_eval else None
        )
        optimizers = task.optimizers(pool)
        precision = Precision(device_type=device.type, dtype=_DTYPES[train.precision])
        schedulers = task.schedulers(
            optimizers, epochs=train.epochs, steps_per_epoch=train_batches.length
        )
        check_optimizer_settings(experiment, optimizers, schedulers)
        with task.errors("optimizers", TaskError):
            managed = manage_optimizers(
                optimizers,
                schedulers=schedulers,
                settings=settings.optimizers,
                pool=pool,
                precision=precision,
                skip_nonfinite=train.on_nonfinite == "skip",
                processes=processes,
                modules=modules,
            )
        report_untrained(pool, managed)
        if processes.rank:
            # Data and optimizers were made alike in all; steps draw in each for itself.
            seed_everything(derive_seed(train.seed, "run", *processes.ranks.rng_key))
        control = RunControl(managed, processes)
        run = Run(
            experiment=experiment,
            module_pool=pool,
            config=task.config,
            device=device,
            data_dir=data_dir,
            control=control,
        )
        events = RunEvents(plugins, task, run, control)
        loops = Loops(
            task=task,
            run=run,
            control=control,
            events=events,
            precision=precision,
            reporter=reporter,
            train_batches=train_batches,
            eval_batches=eval_batches,
            modules=modules,
            accumulation=Accumulation(managed.values(), processes),
        )
        return cls(
            experiment=experiment,
            plugins=plugins,
            pool=pool,
            reports=parts.reports,
            run=run,
            optimizers=managed,
            loops=loops,
            events=events,
            processes=processes,
        )

    def checkpoints(
        self, path: Path, *, provenance: Mapping[str, Any] | None = None
    ) -> CheckpointManager:
        """Build the checkpoint manager that the experiment's settings describe."""
        settings = self.experiment.settings
        train, checkpoints = settings.train, settings.checkpoints
        return CheckpointManager(
            path,
            self.pool,
            monitor=train.monitor,
            mode=train.mode,
            min_delta=train.min_delta,
            keep_epochs=checkpoints.keep_epochs,
            asynchronous=checkpoints.asynchronous,
            link=checkpoints.link,
            fsync_files=(self.run.data_dir / METRICS_FILE_NAME,),
            provenance=provenance,
            processes=self.processes,
        )

    def monitored(self, checkpoints: CheckpointManager, metrics: Mapping[str, float]) -> float:
        """Return the value that decides about ``best``.

        Raises:
            MonitorError: ``metrics`` lacks it; with the line of ``train.monitor``.
        """
        try:
            return checkpoints.best.read(metrics)
        except MonitorError as error:
            self.experiment.locate(error)
            raise
