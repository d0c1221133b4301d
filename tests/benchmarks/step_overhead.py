"""Times one epoch of the same tiny training in several loops, in interleaved rounds.

The model, the data set, the batches and the optimizer are the same everywhere; what differs is who
runs the loop. pymodules is its real ``Trainer``, with everything it does in a step: the clock runs
from the start of its pass over the data to the end of it, as a reporter is told. Accelerate and
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import median, quantiles

import attrs
import torch
from tables import print_machine, print_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

from pymodules_core import Trainer
from pymodules_core.training.reporting import (
    ConsoleReporter,
    EpochSummary,
    Reporter,
    SilentReporter,
)

BATCH_SIZE = 32
LEARNING_RATE = 1e-3
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
from torch.optim import AdamW
from torch.utils.data import TensorDataset


def train_data(config):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(config["samples"], 64, generator=generator)
    return TensorDataset(inputs, torch.randint(10, (config["samples"],), generator=generator))


def optimizers(module_pool):
    return AdamW(module_pool.mlp.parameters(), lr={LEARNING_RATE})


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
    """Passes on what it is told, and reads the clock where the pass over the data starts and ends.

    Args:
        reporter: Shows progress; its cost is in the time.

    Attributes:
        seconds: Wall time of the last train loop.
        steps: Its steps.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.seconds = 0.0
        self.steps = 0
        self._reporter = reporter
        self._started_at = 0.0

    def line(self, text: str) -> None:
        """Pass it on."""
        self._reporter.line(text)

    def pass_started(self, phase: str, epoch: int, batches: int | None) -> None:
        """Start the clock."""
        self._started_at = time.perf_counter()
        self._reporter.pass_started(phase, epoch, batches)

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


@attrs.frozen(kw_only=True)
class Contender:
    """One row of the table.

    Attributes:
        name: What the row is called.
        run: Trains one epoch on a data set and gives the seconds of its loop; None where a package
            is missing.
        reference: The name of the hand-written loop that computes the same.
    """

    name: str
    run: Callable[[TensorDataset], float] | None
    reference: str


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
    optimizer = AdamW(model.parameters(), lr=LEARNING_RATE)
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


def run_pymodules(data: TensorDataset, *, with_accuracy: bool, show_bar: bool) -> float:
    """Train an experiment with the real trainer."""
    reporter = TimedReporter(
        ConsoleReporter(Terminal(), show_bar=True) if show_bar else SilentReporter()
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
        AdamW(model.parameters(), lr=LEARNING_RATE),
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

        def configure_optimizers(self) -> AdamW:
            return AdamW(self.model.parameters(), lr=LEARNING_RATE)

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


def make_contenders() -> list[Contender]:
    """Give the rows of the table; the hand-written loops come first."""
    loss, both = "by hand, loss", "by hand, loss and accuracy"
    has_accelerate = importlib.util.find_spec("accelerate") is not None
    has_lightning = importlib.util.find_spec("lightning") is not None
    rows: list[tuple[str, Callable[..., float] | None, str, dict[str, bool]]] = [
        (loss, run_by_hand, loss, {}),
        (both, run_by_hand, both, {}),
        ("pymodules, loss, no bar", run_pymodules, loss, {"show_bar": False}),
        ("pymodules, loss and accuracy, no bar", run_pymodules, both, {"show_bar": False}),
        ("pymodules, loss and accuracy, bar", run_pymodules, both, {"show_bar": True}),
        ("Accelerate, loss", run_accelerate if has_accelerate else None, loss, {}),
        ("Accelerate, loss and accuracy", run_accelerate if has_accelerate else None, both, {}),
    ]
    lightning = run_lightning if has_lightning else None
    rows += [
        ("Lightning, loss, no bar", lightning, loss, {"show_bar": False}),
        ("Lightning, loss and accuracy, no bar", lightning, both, {"show_bar": False}),
        ("Lightning, loss and accuracy, bar", lightning, both, {"show_bar": True}),
    ]
    return [
        Contender(
            name=name,
            run=function and _bind(function, with_accuracy=reference == both, **options),
            reference=reference,
        )
        for name, function, reference, options in rows
    ]


def measure(contenders: list[Contender], *, steps: int, rounds: int) -> list[dict[str, float]]:
    """Run every contender once a round, after a short round that does not count.

    Each round starts one contender later than the one before, so that none is always first.

    Returns:
        Of each round the microseconds a step by name.
    """
    active = [contender for contender in contenders if contender.run is not None]
    measured = []
    for index in range(rounds + 1):
        count = steps if index else WARM_UP_STEPS
        data = make_data(count)
        shift = index % len(active)
        one_round = {}
        for contender in (*active[shift:], *active[:shift]):
            gc.collect()
            torch.manual_seed(index)
            with _quiet():
                seconds = contender.run(data) if contender.run else 0.0
            one_round[contender.name] = seconds / count * 1e6
        measured.append(one_round)
    return measured[1:]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000, help="steps of an epoch")
    parser.add_argument("--rounds", type=int, default=11, help="rounds that count")
    options = parser.parse_args()
    torch.set_num_threads(1)
    contenders = make_contenders()
    rounds = measure(contenders, steps=options.steps, rounds=options.rounds)
    print_machine()
    print(
        f"One epoch of {options.steps:,} steps, MLP 64-64-10, AdamW, batches of {BATCH_SIZE} from "
        f"a DataLoader without workers, one torch thread; {options.rounds} interleaved rounds. "
        "The difference is to the hand-written loop that computes the same: the median over the "
        "rounds with its quartiles, and least minus least, which noise moves less. "
        f"Target: at most {TARGET_US} µs with bar and metrics on."
    )
    print_table(
        ["loop", "median µs a step", "least", "over by hand", "quartiles", "least over least"],
        [_row(contender, rounds) for contender in contenders],
    )
    return 0


def _row(contender: Contender, rounds: list[dict[str, float]]) -> list[str]:
    if contender.run is None:
        return [contender.name, "not installed", "", "", "", ""]
    times = [one[contender.name] for one in rounds]
    numbers = [f"{median(times):.0f}", f"{min(times):.0f}"]
    if contender.name == contender.reference:
        return [contender.name, *numbers, "", "", ""]
    more = [one[contender.name] - one[contender.reference] for one in rounds]
    low, middle, high = quantiles(more, n=4) if len(more) > 1 else more * 3
    least = min(times) - min(one[contender.reference] for one in rounds)
    return [
        contender.name,
        *numbers,
        f"{middle:+.0f}",
        f"{low:+.0f} to {high:+.0f}",
        f"{least:+.0f}",
    ]


def _bind(function: Callable[..., float], **options: bool) -> Callable[[TensorDataset], float]:
    return lambda data: function(data, **options)


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
