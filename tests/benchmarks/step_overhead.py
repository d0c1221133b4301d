"""Times one epoch of the same tiny training in several loops, in interleaved rounds.

The model, the data set, the batches and the optimizer are the same everywhere; what differs is who
runs the loop. pymodules is its real ``Trainer``, with everything it does in a step: the clock runs
from the start of its pass over the data to the end of it, as a reporter is reported. Accelerate and
Lightning are left out where they are not installed.
"""

import argparse
import gc
import importlib.util
import io
import logging
import os
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import attrs
import torch
from tables import print_machine, print_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from pymodules_core import Trainer
from pymodules_core.training.run_output.console import (
    ConsoleReporter,
    EpochSummary,
    PassStart,
    ProgressPrinter,
    SilentPrinter,
)

BATCH_SIZE = 32
LEARNING_RATE = 0.01
WARM_UP_STEPS = 200
TARGET_US = 60

MODULE_FILE = """
from torch import nn

module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
settings = {}
"""
TASK_FILE = f"""
import torch
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.data import TensorDataset


class Own(TensorDataset):
    pass  # may draw random numbers, for all that the trainer knows


def train_data(config):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(config["samples"], 64, generator=generator)
    dataset = Own if config["own_dataset"] else TensorDataset
    return dataset(inputs, torch.randint(10, (config["samples"],), generator=generator))


def optimizers(module_pool):
    return SGD(module_pool.mlp.parameters(), lr={LEARNING_RATE})


def train_step(module_pool, batch, config):
    inputs, labels = batch
    logits = module_pool.mlp(inputs)
    loss = cross_entropy(logits, labels)
    if not config["with_accuracy"]:
        return loss
    return {{"loss": loss, "accuracy": (logits.argmax(dim=1) == labels).float().mean()}}
"""


class Terminal(io.TextIOBase):
    """A stream that says it is a terminal and forgets what is written."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Say yes."""
        return True

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str) -> int:
        """Forget ``text``."""
        return len(text)


class TimedReporter:
    """Passes on what it is given, and reads the clock where the pass over the data starts and ends.

    Args:
        reporter: Shows progress; its cost is in the time.

    Attributes:
        seconds: Wall time of the last train loop.
        steps: Its steps.
    """

    def __init__(self, reporter: ProgressPrinter) -> None:
        self.seconds = 0.0
        self.steps = 0
        self._reporter = reporter
        self._started_at = 0.0

    def line(self, text: str) -> None:
        """Pass it on."""
        self._reporter.line(text)

    def pass_started(self, started: PassStart) -> None:
        """Start the clock."""
        self._started_at = time.perf_counter()
        self._reporter.pass_started(started)

    def pass_advanced(self, done: int, metrics: Mapping[str, float]) -> None:
        """Pass it on."""
        self._reporter.pass_advanced(done, metrics)

    def pass_ended(self, done: int) -> None:
        """Stop the clock."""
        self._reporter.pass_ended(done)
        self.seconds = time.perf_counter() - self._started_at
        self.steps = done

    def epoch_ended(self, summary: EpochSummary) -> None:
        """Pass it on."""
        self._reporter.epoch_ended(summary)


@attrs.frozen
class Contender:
    """One row of the table.

    Attributes:
        name: What the row is called.
        run: Trains one epoch on a data set and gives the seconds of its loop; None where a package
            is missing.
    """

    name: str
    run: Callable[[TensorDataset], float] | None


@attrs.frozen
class Group:
    """Loops that compute the same.

    Attributes:
        reference: The hand-written one.
        contenders: The others.
    """

    reference: Contender
    contenders: list[Contender]


@attrs.define
class Timings:
    """What was measured of one contender, in microseconds a step.

    Attributes:
        times: One a run.
        differences: To the mean of the reference's runs just before and just after; one a run.
    """

    times: list[float] = attrs.field(factory=list)
    differences: list[float] = attrs.field(factory=list)


def make_data(steps: int) -> TensorDataset:
    """Make inputs ``(samples, 64)`` float and labels ``(samples,)`` int64 in 0..9, as the task."""
    generator = torch.Generator().manual_seed(0)
    samples = steps * BATCH_SIZE
    return TensorDataset(
        torch.randn(samples, 64, generator=generator),
        torch.randint(10, (samples,), generator=generator),
    )


def make_model() -> nn.Sequential:
    """Build what the module file builds."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def run_by_hand(data: TensorDataset, *, with_accuracy: bool) -> float:
    """Train as the PyTorch tutorials do, and keep the mean of the metrics."""
    model = make_model()
    optimizer = SGD(model.parameters(), lr=LEARNING_RATE)
    loader = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True)
    start = time.perf_counter()
    total_loss = total_accuracy = 0.0
    samples = 0
    for inputs, labels in loader:
        logits = model(inputs)
        loss = cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if with_accuracy:
            accuracy = (logits.argmax(dim=1) == labels).float().mean()
            total_loss += loss.item() * len(inputs)
            total_accuracy += accuracy.item() * len(inputs)
            samples += len(inputs)
    return time.perf_counter() - start


def run_pymodules(
    data: TensorDataset, *, with_accuracy: bool, show_bar: bool, own_dataset: bool = False
) -> float:
    """Train an experiment with the real trainer."""
    reporter = TimedReporter(
        ConsoleReporter(Terminal(), show_bar=True) if show_bar else SilentPrinter()
    )
    with tempfile.TemporaryDirectory(prefix="pymodules-overhead-") as folder:
        path = Path(folder) / "experiments" / "overhead"
        modules = path / "pymodules" / "modules"
        modules.mkdir(parents=True)
        (modules / "mlp.py").write_text(MODULE_FILE, encoding="utf-8")
        (path / "pymodules" / "task.py").write_text(TASK_FILE, encoding="utf-8")
        overrides = {
            "train.epochs": 1,
            "train.batch_size": BATCH_SIZE,
            "train.device": "cpu",
            "task.with_accuracy": with_accuracy,
            "task.samples": len(data),
            "task.own_dataset": own_dataset,
        }
        Trainer(path, overrides=overrides, load_installed=False, reporter=reporter).fit()
    if reporter.steps * BATCH_SIZE != len(data):
        raise RuntimeError(f"the trainer took {reporter.steps} steps")
    return reporter.seconds


def run_accelerate(data: TensorDataset, *, with_accuracy: bool) -> float:
    """Train by hand with what Accelerate prepared."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = make_model()
    model, optimizer, loader = accelerator.prepare(
        model,
        SGD(model.parameters(), lr=LEARNING_RATE),
        DataLoader(data, batch_size=BATCH_SIZE, shuffle=True),
    )
    start = time.perf_counter()
    total_loss = total_accuracy = 0.0
    samples = 0
    for inputs, labels in loader:
        logits = model(inputs)
        loss = cross_entropy(logits, labels)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if with_accuracy:
            accuracy = (logits.argmax(dim=1) == labels).float().mean()
            total_loss += loss.item() * len(inputs)
            total_accuracy += accuracy.item() * len(inputs)
            samples += len(inputs)
    return time.perf_counter() - start


def run_lightning(data: TensorDataset, *, with_accuracy: bool, show_bar: bool) -> float:
    """Train with Lightning's trainer, without logger and checkpoints."""
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model()
            self.started_at = 0.0
            self.seconds = 0.0

        def configure_optimizers(self) -> SGD:
            return SGD(self.model.parameters(), lr=LEARNING_RATE)

        def training_step(self, batch: list[Tensor]) -> Tensor:
            inputs, labels = batch
            logits = self.model(inputs)
            loss = cross_entropy(logits, labels)
            if with_accuracy:
                accuracy = (logits.argmax(dim=1) == labels).float().mean()
                means = {"on_step": False, "on_epoch": True, "batch_size": len(inputs)}
                self.log("loss", loss, **means)
                self.log("accuracy", accuracy, **means)
            return loss

        def on_train_epoch_start(self) -> None:
            self.started_at = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            self.seconds = time.perf_counter() - self.started_at

    model = Lit()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=show_bar,
    )
    trainer.fit(model, DataLoader(data, batch_size=BATCH_SIZE, shuffle=True))
    return model.seconds


def make_groups() -> list[Group]:
    """Return the rows of the table."""
    has_accelerate = importlib.util.find_spec("accelerate") is not None
    has_lightning = importlib.util.find_spec("lightning") is not None
    accelerate = run_accelerate if has_accelerate else None
    lightning = run_lightning if has_lightning else None
    groups = []
    for text, with_accuracy in (("loss", False), ("loss and accuracy", True)):
        # The bar is drawn where there is something to show.
        bars = (False, True) if with_accuracy else (False,)
        contenders = [
            _contender(name, function, text, with_accuracy=with_accuracy, show_bar=show_bar)
            for name, function in (("pymodules", run_pymodules), ("Lightning", lightning))
            for show_bar in bars
        ]
        contenders.append(_contender("Accelerate", accelerate, text, with_accuracy=with_accuracy))
        if not with_accuracy:
            own = partial(run_pymodules, with_accuracy=False, show_bar=False, own_dataset=True)
            contenders.append(Contender("pymodules, loss, a dataset of one's own", own))
        reference = _contender("by hand", run_by_hand, text, with_accuracy=with_accuracy)
        groups.append(Group(reference, contenders))
    return groups


def measure(groups: list[Group], *, steps: int, rounds: int) -> dict[str, Timings]:
    """Run every contender once a round, after a short round that does not count.

    The reference runs before and after each contender: a machine that slows down for seconds slows
    down both.

    Returns:
        Timings by the contender's name.
    """
    timings: dict[str, Timings] = defaultdict(Timings)
    _run_round(groups, make_data(WARM_UP_STEPS), defaultdict(Timings))
    data = make_data(steps)
    for _ in range(rounds):
        _run_round(groups, data, timings)
    return timings


def _run_round(groups: list[Group], data: TensorDataset, timings: dict[str, Timings]) -> None:
    for group in groups:
        name = group.reference.name
        before = _time_us(group.reference, data)
        timings[name].times.append(before)
        for contender in group.contenders:
            if contender.run is None:
                continue
            time_us = _time_us(contender, data)
            after = _time_us(group.reference, data)
            timings[contender.name].times.append(time_us)
            timings[contender.name].differences.append(time_us - (before + after) / 2)
            timings[name].times.append(after)
            before = after


def _time_us(contender: Contender, data: TensorDataset) -> float:
    gc.collect()
    torch.manual_seed(0)
    with _quiet():
        seconds = contender.run(data) if contender.run else 0.0
    return seconds / (len(data) / BATCH_SIZE) * 1e6


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="steps of an epoch")
    parser.add_argument("--rounds", type=int, default=25, help="rounds that count")
    options = parser.parse_args()
    torch.set_num_threads(1)
    groups = make_groups()
    timings = measure(groups, steps=options.steps, rounds=options.rounds)
    print_machine()
    print(
        f"One epoch of {options.steps:,} steps, MLP 64-64-10, SGD, batches of {BATCH_SIZE} from "
        f"a DataLoader without workers, one torch thread; {options.rounds} interleaved rounds. "
        "The difference is to the hand-written loop that computes the same, run just before and "
        "just after: the median over the rounds, with its quartiles. "
        f"Target: at most {TARGET_US} µs with bar and metrics on."
    )
    print_table(
        ["loop", "µs a step", "least", "over by hand, µs", "quartiles"],
        [
            _row(contender.name, timings.get(contender.name))
            for group in groups
            for contender in (group.reference, *group.contenders)
        ],
    )
    return 0


def _row(name: str, timings: Timings | None) -> list[str]:
    if timings is None:
        return [name, "not installed", "", "", ""]
    cells = [name, f"{median(timings.times):.0f}", f"{min(timings.times):.0f}"]
    more = timings.differences
    if not more:
        return [*cells, "", ""]
    low, middle, high = quantiles(more, n=4) if len(more) > 1 else more * 3
    return [*cells, f"{middle:+.0f}", f"{low:+.0f} to {high:+.0f}"]


def _contender(
    name: str, function: Callable[..., float] | None, text: str, **options: bool
) -> Contender:
    if "show_bar" in options:
        text += ", bar" if options["show_bar"] else ", no bar"
    if function is None:
        return Contender(f"{name}, {text}", None)
    return Contender(f"{name}, {text}", partial(function, **options))


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what trainers print to a terminal that forgets it, and drop their advice."""
    with warnings.catch_warnings(), redirect_stdout(Terminal()), redirect_stderr(Terminal()):
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    # Advice on workers, and on the devices that are there.
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
