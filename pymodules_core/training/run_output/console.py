"""Shows a run to a person: bars on a terminal, a line an epoch everywhere."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

import attrs
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from pymodules_core.moved import moved_names

REFRESH_S = 0.2


@attrs.frozen(kw_only=True)
class EpochSummary:
    """What an epoch's line shows.

    Attributes:
        epoch: The epoch; 0 is the evaluation before training.
        epochs: Epochs planned.
        train_metrics: Means of the train loop.
        eval_metrics: Means of the eval loop.
        is_best: Whether ``best`` moved.
        seconds: Wall time of the epoch.
        skipped_steps: Updates of the epoch that were left out because a loss was not finite.
    """

    epoch: int
    epochs: int
    train_metrics: Mapping[str, float]
    eval_metrics: Mapping[str, float]
    is_best: bool
    seconds: float
    skipped_steps: int


@attrs.frozen(kw_only=True)
class PassStart:
    """A pass over the data that begins.

    Attributes:
        phase: ``train`` or ``eval``.
        epoch: The epoch; 0 is the evaluation before training.
        epochs: Epochs planned.
        batches: Batches of the pass, None where the data does not know.
        done: Batches that were done before the run was interrupted.
    """

    phase: str
    epoch: int
    epochs: int
    batches: int | None
    done: int = 0


class ProgressPrinter(Protocol):
    """Shows the progress of a run."""

    def line(self, text: str) -> None:
        """Say one thing."""

    def pass_started(self, started: PassStart) -> None:
        """A pass over the data begins, or is resumed in the middle."""

    def pass_advanced(self, done: int, metrics: Mapping[str, float]) -> None:
        """Some batches are done; called a few times a second."""

    def pass_ended(self, done: int) -> None:
        """The pass is over."""

    def epoch_ended(self, summary: EpochSummary) -> None:
        """An epoch is over."""


class SilentPrinter:
    """Says nothing."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def pass_started(self, started: PassStart) -> None:
        """Say nothing."""

    def pass_advanced(self, done: int, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def pass_ended(self, done: int) -> None:
        """Say nothing."""

    def epoch_ended(self, summary: EpochSummary) -> None:
        """Say nothing."""


class _LastingStream:
    """A stream that says nothing more once nobody reads it: the run is worth more than its lines.

    A terminal that was closed, a pipe whose reader is gone, a process without standard output.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream
        self._is_gone = stream is None

    def write(self, text: str) -> int:
        """Write, as long as somebody reads."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush, as long as somebody reads."""
        self._try("flush")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, name: str, *arguments: str) -> None:
        if self._is_gone:
            return
        try:
            getattr(self._stream, name)(*arguments)
        except OSError:
            self._is_gone = True


class _Bars(Progress):
    """Bars, and below them the metrics on as many lines as they take.

    As a column of the bars many metrics would push all others off the screen.
    """

    metrics = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bars and the metrics."""
        yield from super().get_renderables()
        if self.metrics:
            yield Text(self.metrics, no_wrap=False, overflow="fold")


class ConsoleReporter:
    """Lines on a stream, and a bar under them where the stream is a terminal.

    Args:
        stream: Where to write; standard output by default.
        show_bar: Overrides the look at the stream.
    """

    def __init__(self, stream: IO[str] | None = None, *, show_bar: bool | None = None) -> None:
        self._console = Console(
            file=cast("IO[str]", _LastingStream(stream or sys.stdout)),
            force_terminal=show_bar,
            soft_wrap=True,
            highlight=False,
            emoji=False,  # names with colons
        )
        self._show_bar = self._console.is_terminal if show_bar is None else show_bar
        self._bar: _Bars | None = None
        self._started_at = 0.0
        self._started = PassStart(phase="", epoch=0, epochs=0, batches=None)

    def line(self, text: str) -> None:
        """Print one line, above the bar where there is one."""
        self._console.print(text, markup=False)

    def pass_started(self, started: PassStart) -> None:
        """Put up two bars: the epochs, and the batches of this pass."""
        if not self._show_bar:
            return
        self._started, self._started_at = started, time.perf_counter()
        # redirect_stderr off: rich's redirection breaks a user's own tqdm.
        self._bar = _Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stderr=False,
        )
        if started.epoch:
            done = started.epoch - 1
            count = f"{started.epoch}/{started.epochs}"
            self._bar.add_task("epoch", total=started.epochs, completed=done, count=count, rate="")
        self._bar.add_task(
            started.phase,
            total=started.batches,
            completed=started.done,
            count=f"{started.done}/{started.batches or '?'}",
            rate="",
        )
        self._bar.start()

    def pass_advanced(self, done: int, metrics: Mapping[str, float]) -> None:
        """Move the bars."""
        if self._bar is None:
            return
        started = self._started
        elapsed_s = max(time.perf_counter() - self._started_at, 1e-9)
        if started.epoch and started.batches and started.phase == "train":
            self._bar.update(
                self._bar.task_ids[0], completed=started.epoch - 1 + done / started.batches
            )
        self._bar.metrics = format_metrics(metrics)
        self._bar.update(
            self._bar.task_ids[-1],
            completed=done,
            count=f"{done}/{started.batches or '?'}",
            rate=f"{(done - started.done) / elapsed_s:.0f} steps/s",
            refresh=True,
        )

    def pass_ended(self, done: int) -> None:
        """Take the bar away."""
        del done
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def epoch_ended(self, summary: EpochSummary) -> None:
        """Print the epoch's line."""
        self.line(format_epoch(summary))


def format_epoch(summary: EpochSummary) -> str:
    """Return an epoch's line: what was trained, what came out, whether it is the best."""
    width = len(str(summary.epochs))
    parts = [f"epoch {summary.epoch:>{width}}/{summary.epochs}"]
    for phase, metrics in (("train", summary.train_metrics), ("eval", summary.eval_metrics)):
        if metrics:
            parts.append(f"{phase} {format_metrics(metrics)}")
    parts.append(f"{summary.seconds:.1f} s")
    if summary.skipped_steps:
        steps = "step" if summary.skipped_steps == 1 else "steps"
        parts.append(f"{summary.skipped_steps} {steps} skipped (loss not finite)")
    if summary.is_best:
        parts.append("best")
    return "  ".join(parts)


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics as ``name value`` with four significant digits."""
    return " ".join(f"{name} {value:.4g}" for name, value in metrics.items())


if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = moved_names(__name__)
