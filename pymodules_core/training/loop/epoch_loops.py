"""The train loop and the eval loop: one pass over the data each.

Everything that can be looked up once is looked up before the loop: what remains a step is what a
hand-written loop does too, plus a clock reading.
"""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing
from typing import Any

import attrs
import torch

from pymodules_core.errors import TaskError
from pymodules_core.training.data import Batches
from pymodules_core.training.loop.sharded_data import NO_BATCH, batches_of_epoch
from pymodules_core.training.optim.accumulation import Accumulation
from pymodules_core.training.optim.precision import Precision
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
        task: Has the steps.
        run: Epoch and step.
        control: The step at hand.
        events: Run hooks.
        precision: Autocast of the steps.
        reporter: Shows progress.
        train_batches: Training data.
        eval_batches: Evaluation data, or None.
        modules: How processes share the modules.
        accumulation: Gradients that wait in the middle of an epoch.
    """

    task: Task
    run: Run
    control: RunControl
    events: RunEvents
    precision: Precision
    reporter: ProgressPrinter
    train_batches: Batches
    eval_batches: Batches | None
    modules: SharedModules
    accumulation: Accumulation

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
            should_stop: Given the count of a step, returns whether it is the last of the epoch.
            after_step: Called after each step, hooks included, with the batches done; commits in
                mid-epoch, and raises where the run is to end there.
            batches_done: Batches that were trained before.
            averages: The metrics of those.

        Returns:
            Means of the metrics over the steps.

        Raises:
            TaskError: No batch, or a step returns something unusable.
            TrainingError: A step raises, or a loss is not finite.
        """
        run = self.run
        sums = self.control.start_pass(is_evaluation=False, averages=averages)
        step = self.task.step("train_step", run)
        run.module_pool.set_training(training=True)
        autocast = self.precision.autocast()
        errors = self._errors("train_step", lambda: count)
        length = self.train_batches.length
        count = batches_done
        progress = self._progress("train", self.train_batches, sums, done=batches_done)
        # The last step before a resume may have reached a limit: nothing is left of this epoch.
        is_over = batches_done > 0 and should_stop(run.step)
        with closing(progress):
            for batch in () if is_over else progress:
                is_last = should_stop(run.step + 1)
                is_end = is_last or count + 1 == length
                with errors:
                    self._train_on(batch, step, autocast, is_end=is_end)
                count += 1
                run.step += 1
                self._step_finished()
                after_step(count)
                if is_last:
                    break
        self._end_training(errors)
        if not count:
            raise self._no_batch("train_data")
        return self._finish("train_step", sums)

    def _train_on(
        self,
        batch: Any,
        step: Callable[[Any], Any],
        autocast: AbstractContextManager[Any],
        *,
        is_end: bool,
    ) -> None:
        control, is_alone = self.control, self.control.processes.is_alone
        control.start_train_step()
        if not is_alone:
            self._start_shared_step()
        with autocast:
            control.take_train_result(step(batch))
        if not is_alone:
            self._end_shared_step()
        if is_end:
            control.flush()
        self.accumulation.step_ended()

    def _end_training(self, errors: TaskErrors) -> None:
        """Update from what waits: data of unknown length ends only after its last step's hooks."""
        control = self.control
        with errors:
            control.start_train_step()
            control.flush()
            self.accumulation.step_ended()
            control.end_pass()
        if control.stepped:
            self._step_finished()
        with errors:
            for optimizer in control.optimizers.values():
                optimizer.check_finite()

    def evaluate(self, batches: Batches, *, after_step: Callable[[], None]) -> dict[str, float]:
        """Evaluate once: eval mode, no gradients.

        Args:
            batches: The data.
            after_step: Called after each batch; raises where the run is to end there.

        Returns:
            Means of the metrics, weighted by batch size.

        Raises:
            TaskError: No batch, or ``eval_step`` returns something unusable.
            StepError: ``eval_step`` raises.
        """
        run = self.run
        self.modules.copy_buffers()  # all processes evaluate with the statistics of the first
        averages = self.control.start_pass(is_evaluation=True)
        step = self.task.step("eval_step", run)
        run.module_pool.set_training(training=False)
        autocast = self.precision.autocast()
        errors = self._errors("eval_step", lambda: count)
        count = 0
        progress = self._progress("eval", batches, averages)
        with closing(progress), torch.no_grad():
            for batch in progress:
                if batch is not NO_BATCH:
                    with errors, autocast:
                        self.control.take_eval_result(step(batch))
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
            for optimizer in self.control.optimizers.values():
                optimizer.end_epoch(monitored)

    def _learning_rates(self) -> dict[str, float]:
        """Return them as the progress bar shows them."""
        is_single = len(self.control.optimizers) == 1
        return {
            "lr" if is_single else f"lr_{name}": optimizer.learning_rate
            for name, optimizer in self.control.optimizers.items()
        }

    def _start_shared_step(self) -> None:
        self.modules.start_step()
        for optimizer in self.control.optimizers.values():
            optimizer.start_step()

    def _end_shared_step(self) -> None:
        for optimizer in self.control.optimizers.values():
            optimizer.end_step()
        # A module without a backward, such as a frozen one, is still gathered. What one process
        # does alone, such as `state_dict()`, would release it there, and the next call would hang.
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
        """Yield the batches on the run's device and refresh the bar a few times a second."""
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
                for batch in batches_of_epoch(
                    batches,
                    control,
                    control.processes,
                    epoch=run.epoch,
                    phase=phase,
                    done=done,
                    has_shards=self.modules.has_shards,
                ):
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

    def _finish(self, where: str, averages: MetricAverages) -> dict[str, float]:
        with self.task.errors(where, note=lambda: f" (epoch {self.run.epoch})"):
            means = averages.means(self.control.processes)
            averages.reset_stateful()
        self.control.end_pass()
        return means

    def _errors(self, where: str, count: Callable[[], int]) -> TaskErrors:
        """Add epoch, step and batch to what the task raises, and its file and line.

        Args:
            where: The function of the task that runs.
            count: Returns the batches that are done.
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
