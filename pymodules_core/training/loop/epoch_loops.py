"""The train loop and the eval loop: one pass over the data each.

Everything that can be looked up once is looked up before the loop: what remains a step is what a
hand-written loop does too, plus a clock reading.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import attrs
import torch

from pymodules_core.errors import TaskError
from pymodules_core.processes.group import Processes
from pymodules_core.training.data import Batches
from pymodules_core.training.loop.sharded_data import NO_BATCH, lockstep
from pymodules_core.training.optim.accumulation import Accumulation
from pymodules_core.training.optim.unit import ManagedOptimizer, Precision
from pymodules_core.training.parallel import SharedModules
from pymodules_core.training.run_output.console import REFRESH_S, PassStart, ProgressPrinter
from pymodules_core.training.task.control import RunControl
from pymodules_core.training.task.device import batch_length, move_batch
from pymodules_core.training.task.errors import TaskErrors
from pymodules_core.training.task.hooks import RunEvents
from pymodules_core.training.task.metrics import MetricAverages
from pymodules_core.training.task.run import Run
from pymodules_core.training.task.task import Task


@attrs.frozen(kw_only=True)
class Loops:
    """What both loops need.

    Attributes:
        task: Gives the steps.
        run: Epoch and step.
        control: The step at hand.
        events: Run hooks.
        units: The optimizers by name.
        precision: Autocast of the steps.
        reporter: Shows progress.
        train_batches: Training data.
        eval_batches: Evaluation data, or None.
        modules: How processes share the modules.
        windows: Gradients that wait in the middle of an epoch.
        processes: Who trains together.
    """

    task: Task
    run: Run
    control: RunControl
    events: RunEvents
    units: dict[str, ManagedOptimizer]
    precision: Precision
    reporter: ProgressPrinter
    train_batches: Batches
    eval_batches: Batches | None
    modules: SharedModules
    windows: Accumulation
    processes: Processes

    def train(
        self,
        *,
        should_stop: Callable[[int], bool],
        after_step: Callable[[int], None],
        batches_done: int = 0,
        averages: Mapping[str, Any] | None = None,
    ) -> dict[str, float]:
        """Train one epoch, or what is left of it.

        Args:
            should_stop: Given the count of a step, tells whether it is the last of the epoch.
            after_step: Called after each step, hooks included, with the batches done; commits in
                mid-epoch, and raises where the run is to end there.
            batches_done: Batches that were trained before.
            averages: The metrics of those.

        Returns:
            Means of the metrics over the steps.

        Raises:
            TaskError: No batch, or a step gives something unusable.
            TrainingError: A step raises, or a loss is not finite.
        """
        run, control, units = self.run, self.control, self.units.values()
        is_alone = self.processes.is_alone
        self.modules.start_pass(is_evaluation=False)
        sums = control.start_pass(is_evaluation=False, averages=averages)
        step = self.task.step("train_step", run)
        run.module_pool.set_training(training=True)
        autocast = _autocast(self.precision)
        errors = self._errors("train_step", lambda: count)
        length = self.train_batches.length
        count = batches_done
        progress = self._progress("train", self.train_batches, sums, done=batches_done)
        # A limit that the last step before had reached: nothing is left of this epoch.
        is_over = batches_done > 0 and should_stop(run.step)
        with closing(progress):
            for batch in () if is_over else progress:
                is_last = should_stop(run.step + 1)
                is_end = is_last or count + 1 == length
                with errors:
                    control.start_train_step()
                    if not is_alone:
                        self._start_shared_step()
                    with autocast:
                        control.take_train_result(step(batch))
                    if not is_alone:
                        self._end_shared_step()
                    if is_end:
                        control.flush()
                    self.windows.step_ended()
                count += 1
                run.step += 1
                self._step_finished()
                after_step(count)
                if is_last:
                    break
        # Data of unknown length ends only here, after the hooks of its last step.
        with errors:
            control.start_train_step()
            control.flush()
            self.windows.step_ended()
            control.end_pass()
        if control.stepped:
            self._step_finished()
        with errors:
            for unit in units:
                unit.check_finite()
        if not count:
            raise self._no_batch("train_data")
        return self._finish("train_step", sums)

    def evaluate(self, batches: Batches, *, after_step: Callable[[], None]) -> dict[str, float]:
        """Evaluate once: eval mode, no gradients.

        Args:
            batches: The data.
            after_step: Called after each batch; raises where the run is to end there.

        Returns:
            Means of the metrics, weighted by batch size.

        Raises:
            TaskError: No batch, or ``eval_step`` gives something unusable.
            StepError: ``eval_step`` raises.
        """
        run, control = self.run, self.control
        self.modules.start_pass(is_evaluation=True)
        averages = control.start_pass(is_evaluation=True)
        step = self.task.step("eval_step", run)
        run.module_pool.set_training(training=False)
        autocast = _autocast(self.precision)
        errors = self._errors("eval_step", lambda: count)
        count = 0
        progress = self._progress("eval", batches, averages)
        with closing(progress), torch.no_grad():
            for batch in progress:
                if batch is not NO_BATCH:
                    with errors, autocast:
                        control.take_eval_result(step(batch))
                count += 1
                after_step()
        self.modules.release()
        if not count:
            raise self._no_batch("eval_data")
        return self._finish("eval_step", averages)

    def end_epoch(self, monitored: float | None) -> None:
        """Step the schedulers that follow epochs.

        Raises:
            StepError: A scheduler raises.
        """
        with self.task.errors("schedulers", note=lambda: f" (epoch {self.run.epoch})"):
            for unit in self.units.values():
                unit.end_epoch(monitored)

    def _learning_rates(self) -> dict[str, float]:
        """Give them as the bar shows them."""
        is_single = len(self.units) == 1
        return {
            "lr" if is_single else f"lr_{name}": unit.learning_rate
            for name, unit in self.units.items()
        }

    def _start_shared_step(self) -> None:
        self.modules.start_step()
        for unit in self.units.values():
            unit.start_step()

    def _end_shared_step(self) -> None:
        for unit in self.units.values():
            unit.end_step()
        # A module without a backward, a frozen one, is gathered still. What one process does alone,
        # `state_dict()` for one, would release it there, and the next call would wait for ever.
        self.modules.release()

    def _step_finished(self) -> None:
        if self.events.has_step_hooks:
            control = self.control
            self.events.emit(
                "train_step_finished", stepped=control.stepped, metrics=control.take_step_metrics()
            )

    def _progress(
        self, phase: str, batches: Batches, averages: MetricAverages, *, done: int = 0
    ) -> Generator[Any, None, None]:
        """Give the batches on the run's device and refresh the bar a few times a second."""
        run, control = self.run, self.control
        reporter, clock = self.reporter, time.perf_counter
        device = run.device
        is_training = phase == "train"
        rates = self._learning_rates
        must_move = device.type != "cpu"
        reporter.pass_started(
            PassStart(
                phase=phase,
                epoch=run.epoch,
                epochs=run.experiment.settings.train.epochs,
                batches=batches.length,
                done=done,
            )
        )
        refresh_at = clock() + REFRESH_S
        try:
            # What the loop's body raises does not pass through here: these are the data's errors.
            with self._errors(f"{phase}_data", lambda: done):
                for batch in self._batches_of(batches, phase, done):
                    moved = move_batch(batch, device) if must_move else batch
                    control.batch_size = batch_length(moved)
                    yield moved
                    done += 1
                    if clock() >= refresh_at:
                        shown = averages.running_means()
                        reporter.pass_advanced(done, shown | (rates() if is_training else {}))
                        refresh_at = clock() + REFRESH_S
                if (promised := batches.promised) is not None and done < promised:
                    raise TaskError(
                        f"{phase}_data ended after {done} of {promised} batches",
                        found=done,
                        fix="an item that raises StopIteration ends the data: look for next(...)",
                    )
        finally:
            reporter.pass_ended(done)

    def _batches_of(self, batches: Batches, phase: str, done: int) -> Iterator[Any]:
        """Give the batches of an epoch, of which this process may have a part only."""
        own = batches.epoch(self.run.epoch, done=done)
        if self.processes.is_alone:
            return own
        if batches.is_sharded:
            compares, batches.was_compared = not batches.was_compared, True
            return lockstep(
                own,
                self.control,
                self.processes,
                epoch=self.run.epoch,
                name=f"{phase}_data",
                is_training=phase == "train",
                has_shards=self.modules.has_shards,
                compares=compares,
            )
        return self._parts(own, batches)

    def _parts(self, own: Iterator[Any], batches: Batches) -> Iterator[Any]:
        for batch in own:
            self.control.take_rank_share(batches.take_rank_share())
            yield batch

    def _finish(self, where: str, averages: MetricAverages) -> dict[str, float]:
        with self.task.errors(where, note=lambda: f" (epoch {self.run.epoch})"):
            means = averages.means(self.processes)
            averages.reset_stateful()
        self.control.end_pass()
        return means

    def _errors(self, where: str, count: Callable[[], int]) -> TaskErrors:
        """Add epoch, step and batch to what the task raises, and its file and line.

        Args:
            where: The function of the task that runs.
            count: Gives the batches that are done.
        """
        run, is_step = self.run, where.startswith("train")

        def note() -> str:
            step = f"step {run.step + 1}, " if is_step else ""
            return f" (epoch {run.epoch}, {step}batch {count() + 1})"

        return self.task.errors(where, note=note)

    def _no_batch(self, name: str) -> TaskError:
        return TaskError(
            f"{name} gave no batch in epoch {self.run.epoch}",
            file=self.task.file,
            line=self.task.first_line(name),
            key=name,
            fix="return data that is not empty and can be read again each epoch",
        )


def _autocast(precision: Precision) -> AbstractContextManager[Any]:
    if precision.dtype is None:
        return nullcontext()
    return torch.autocast(precision.device_type, dtype=precision.dtype)
