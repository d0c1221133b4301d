"""Hooks of a run's lifecycle: for loggers, averaged copies of weights, samples, notifications.

The task's is called first, then those of packages in the order of plugin names, on which they must
not depend. One that raises in ``task.py``, or in a plugin that provides a module of the pool, fails
the run; one of any other plugin is named once and the training continues without it.

Each call has random streams of its own, so that what it draws does not shift the training; but for
``train_step_finished`` of ``task.py``, which draws from the run's.

Where several processes train, each calls every hook, so that what a hook changes is the same in
all; metrics of an epoch are of all of them. ``checkpoint_committed`` and ``image_logged`` are
called in the first process only, and whoever writes files asks for ``run.rank == 0``.

A run may be resumed in another process, from its latest commit. ``run_started`` is called again
there, and so is ``epoch_finished`` where that commit was the last of its epoch: what the first call
changed, in ``run.state`` or in modules, was not saved. A logger has to expect an epoch twice.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pymodules_core.hookspecs.markers import hookspec
from pymodules_core.hookspecs.types import CommitResult, Run

if TYPE_CHECKING:
    from torch import Tensor


class RunHooks:
    """Lifecycle of one run.

    A whole plugin::

    from pymodules_core import hookimpl

    @hookimpl
    def epoch_finished(run, metrics):
        print(run.epoch, metrics["loss"])
    """

    @hookspec
    def weights_ready(self, run: Run) -> None:
        """Initial weights are loaded; the ``init`` pool is not yet written. Once a run.

        Args:
            run: The run; modules may still be changed here.
        """

    @hookspec
    def run_started(self, run: Run) -> None:
        """Everything is set up, and the run is saved or resumed. Once a process.

        Args:
            run: The run; ``run.resumed_step`` is the step it resumed from, or None.
        """

    @hookspec
    def train_step_finished(
        self, run: Run, stepped: frozenset[str], metrics: Mapping[str, Any]
    ) -> None:
        """One train step is over, optimizers and schedulers included, before any commit of it.

        Called again for the last step of an epoch where data of unknown length ends within an
        accumulation window: that the window is over, and updates, shows only then.

        Args:
            run: The run; ``run.step`` counts this step.
            stepped: Names of the optimizers that updated their parameters in this step.
            metrics: What this step gave, and logged: numbers, and tensors where they are, detached.
                Reading one of a device waits for it. Empty where a step was skipped. Of several
                processes each has those of its own samples.
        """

    @hookspec
    def epoch_finished(
        self,
        run: Run,
        metrics: Mapping[str, float],
        train_metrics: Mapping[str, float],
        is_evaluated: bool,  # noqa: FBT001  hooks are called by name
    ) -> None:
        """An epoch's eval loop is over and its checkpoints are on their way; also epoch 0.

        ``checkpoint_committed`` is called when they are on disk.

        Args:
            run: The run.
            metrics: Means over the eval set, or of the train loop in an epoch without one.
            train_metrics: Means of the train loop; empty in epoch 0.
            is_evaluated: Whether the epoch had an eval loop.
        """

    @hookspec
    def image_logged(self, run: Run, name: str, image: "Tensor") -> None:
        """A step or hook of the task called ``run.log_image``. Each time.

        Args:
            run: The run.
            name: What the image is called; not unique, a curve of images over steps.
            image: ``(channels, height, width)``, or a batch of them, ``(images, channels, height,
                width)``, of 1, 3 or 4 channels: float from 0 to 1, or uint8. Detached, on the
                device it was made on; the task may change it afterwards.
        """

    @hookspec
    def checkpoint_committed(self, run: Run, receipt: CommitResult) -> None:
        """A checkpoint is on disk, synced, the first time that of the start.

        With ``[checkpoints] asynchronous`` training may have gone on meanwhile: the receipt says
        which step it is of. All are reported before ``run_finished`` or ``run_failed``.

        Args:
            run: The run.
            receipt: Which pools, how many bytes, how long.
        """

    @hookspec
    def run_finished(self, run: Run) -> None:
        """The run ended as planned and everything is saved.

        Once a run; again where more epochs are trained later. It has ``[plugins] close_timeout_s``;
        what is not done by then is ended and reported, and the run ends without it.

        Args:
            run: The run; ``run.data_dir`` takes what is worth keeping.
        """

    @hookspec
    def run_failed(self, run: Run, error: BaseException) -> None:
        """The run ends with an error or an interrupt; checkpoints so far are intact.

        Once a process. It has the time that ``run_finished`` has.

        What it raises itself is a warning, so that it never hides why the run failed.

        Args:
            run: The run.
            error: What ended it.
        """
