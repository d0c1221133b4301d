"""The hooks of this package. Neither torch nor tensorboard is imported before a run starts."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pymodules_core import hookimpl
from pymodules_core.errors import list_words
from pymodules_tensorboard.settings import TensorboardSettings
from pymodules_tensorboard.texts import commit_text, settings_text

if TYPE_CHECKING:
    from torch import Tensor

    from pymodules_core import CommitResult, Run
    from pymodules_tensorboard.event_log import EventLog

FOLDER_NAME = "tensorboard"

# Below the host's logger, which shows it as it shows its own.
logger = logging.getLogger("pymodules_core.tensorboard")


class Tensorboard:
    """Writes what a run says to ``run.data_dir / "tensorboard"``.

    Args:
        settings: What is logged.
    """

    Settings = TensorboardSettings

    def __init__(self, settings: TensorboardSettings) -> None:
        self._settings = settings
        self._log: EventLog | None = None
        # Of the newest checkpoint that is known: bytes of each event file, and what is in them.
        self._lengths: dict[str, int] | None = None
        self._step = -1
        self._settings_text = ""
        # The checkpoint that starts a run is reported before the run is.
        self._early: list[CommitResult] = []

    @hookimpl
    def run_started(self, run: "Run") -> None:
        """Open the log; where the run continues, take back what was logged after its checkpoint."""
        if run.rank:  # of several processes the first one writes
            return
        from pymodules_tensorboard.event_log import EventLog  # noqa: PLC0415  imports torch

        if run.resumed_step is None:
            self._lengths = {}
        with self._ending_at_a_fault():
            self._log = EventLog(
                run.data_dir / FOLDER_NAME, lengths=self._lengths, resumed_step=run.resumed_step
            )
            while self._early:
                receipt = self._early.pop(0)
                self._log.note(commit_text(receipt), receipt.step)
            text = settings_text(run.experiment)
            if text != self._settings_text:
                self._log.text("experiment", text, run.step)
                self._settings_text = text
        self._warn_of_patterns(run)

    @hookimpl
    def train_step_finished(self, run: "Run", metrics: Mapping[str, Any]) -> None:
        """Log the first and every n-th step; only then a value is read from its device."""
        # An accumulation window that the end of data cuts short is reported as its step once more.
        is_due = run.step == 1 or run.step % self._settings.every_n_steps == 0
        if not is_due or run.step == self._step:
            return
        self._step = run.step
        if self._log is None:
            return
        with self._ending_at_a_fault():
            self._log.metrics("train", metrics, run.step)
            self._log.learning_rates(run.optimizers, run.step)

    @hookimpl
    def epoch_finished(
        self,
        run: "Run",
        metrics: Mapping[str, float],
        train_metrics: Mapping[str, float],
        is_evaluated: bool,  # noqa: FBT001  hooks are called by name
    ) -> None:
        """Log the means of an epoch, and histograms."""
        if self._log is None:
            return
        with self._ending_at_a_fault():
            self._log.metrics("train_epoch", train_metrics, run.step)
            if is_evaluated:
                self._log.metrics("eval", metrics, run.step)
            if run.step != self._step:
                self._log.learning_rates(run.optimizers, run.step)
            for name, module in run.module_pool.items():
                if any(fnmatchcase(name, pattern) for pattern in self._settings.histograms):
                    self._log.histograms(name, module, run.step)

    @hookimpl
    def image_logged(self, run: "Run", name: str, image: "Tensor") -> None:
        """Log an image, or a batch of them as a grid."""
        if self._log is None:
            return
        with self._ending_at_a_fault():
            self._log.image(f"images/{name}", image, run.step)

    @hookimpl
    def checkpoint_committed(self, receipt: "CommitResult") -> None:
        """Note a checkpoint."""
        if self._log is not None:
            with self._ending_at_a_fault():
                self._log.note(commit_text(receipt), receipt.step)
        elif self._lengths is None:
            self._early.append(receipt)

    @hookimpl
    def run_finished(self) -> None:
        """Close the log."""
        self._close()

    @hookimpl
    def run_failed(self) -> None:
        """Close the log."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Write out what was logged, and tell how far each event file goes."""
        if self._log is not None:
            with self._ending_at_a_fault():
                self._lengths = self._log.lengths()
        return {
            "lengths": self._lengths or {},
            "step": self._step,
            "settings_text": self._settings_text,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what the checkpoint knows of the log."""
        self._lengths = dict(state["lengths"])
        self._step = state["step"]
        self._settings_text = state["settings_text"]

    def _close(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            with self._ending_at_a_fault():
                log.close()

    @contextmanager
    def _ending_at_a_fault(self) -> Iterator[None]:
        """End the log where it cannot be written: the training must not end with it."""
        try:
            yield
        except OSError as error:
            self._log = None
            logger.warning("the log of TensorBoard ends here, it cannot be written: %s", error)

    def _warn_of_patterns(self, run: "Run") -> None:
        names = list(run.module_pool)
        for pattern in self._settings.histograms:
            if not any(fnmatchcase(name, pattern) for name in names):
                logger.warning(
                    "plugins.settings.tensorboard.histograms: %r matches no module; there are: %s",
                    pattern,
                    list_words(names),
                )
