"""``EventLog``: the event files of one run, written by torch's ``SummaryWriter``."""

import time
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.tensorboard.writer import SummaryWriter

from pymodules_core.plugin_api import local_tensor
from pymodules_tensorboard.event_files import cut_back, event_files
from pymodules_tensorboard.pictures import as_picture

# A TensorBoard that watches sees a point half a minute late, at most.
_FLUSH_S = 30
_NOTES = "checkpoints"


class EventLog:
    """Logs one run, in a new event file for each process.

    Args:
        folder: Where the event files are.
        lengths: What ``lengths`` gave at the checkpoint that the run resumes from; empty in a new
            run, None where it is not known.
        resumed_step: The step of that checkpoint; None in a new run.
    """

    def __init__(
        self, folder: Path, *, lengths: Mapping[str, int] | None, resumed_step: int | None
    ) -> None:
        self._folder = folder
        step = resumed_step or 0
        # A checkpoint is noted once it is on disk: the notes of those up to the one that the run
        # resumes from may come after its place in the log, and nobody writes them again.
        notes = cut_back(folder, lengths, step=step, is_kept=_is_note)
        _wait_for_newer_name(folder)
        self._writer = SummaryWriter(
            str(folder),
            # For a TensorBoard that watches: it has read what is cut off now. The points of the
            # step itself stay, since those before the checkpoint are not written again.
            purge_step=None if resumed_step is None else step + 1,
            flush_secs=_FLUSH_S,
        )
        for event in notes:
            writer = self._writer._get_file_writer()  # type: ignore[no-untyped-call]  # torch's own
            writer.add_event(event, walltime=event.wall_time)

    def metrics(self, group: str, metrics: Mapping[str, Any], step: int) -> None:
        """Log numbers as ``<group>/<name>``; objects that accumulate by themselves are left out.

        Args:
            group: ``train``, ``train_epoch`` or ``eval``.
            metrics: Numbers and one-element tensors.
            step: Train steps so far.
        """
        for name, value in metrics.items():
            if isinstance(value, Tensor | Real):
                self._writer.add_scalar(f"{group}/{name}", float(value), step)

    def learning_rates(self, optimizers: Mapping[str, Optimizer], step: int) -> None:
        """Log the rates that the next step uses; the first group's as ``lr/<optimizer>``."""
        for name, optimizer in optimizers.items():
            for index, group in enumerate(optimizer.param_groups):
                tag = f"lr/{name}/group_{index}" if index else f"lr/{name}"
                self._writer.add_scalar(tag, float(group["lr"]), step)

    def histograms(self, name: str, module: nn.Module, step: int) -> None:
        """Log the distribution of each parameter, of its finite values."""
        for key, parameter in module.named_parameters():
            if parameter.is_floating_point():
                # Of a parameter that FSDP2 has sharded: the part of the first process.
                values = local_tensor(parameter).detach().float()
                values = values[values.isfinite()]
                if values.numel():
                    self._writer.add_histogram(f"weights/{name}.{key}", values, step)

    def image(self, tag: str, image: Tensor, step: int) -> None:
        """Log an image, or a batch of them as a grid.

        Args:
            tag: What it is called.
            image: ``(channels, height, width)`` or ``(images, channels, height, width)``, float
                from 0 to 1, or uint8.
            step: Train steps so far.
        """
        self._writer.add_image(tag, as_picture(image), step)

    def text(self, tag: str, text: str, step: int) -> None:
        """Log a text in Markdown."""
        self._writer.add_text(tag, text, step)

    def note(self, text: str, step: int) -> None:
        """Log a text about a checkpoint, which stays although the run may resume from before it."""
        self.text(_NOTES, text, step)
        # Nobody says of it again, so it must not wait in memory for a process that may be killed.
        self._writer.flush()

    def lengths(self) -> dict[str, int]:
        """Write all out, and return the bytes of each event file by name.

        Raises:
            OSError: It cannot be written.
        """
        self._writer.flush()
        return {file.name: file.stat().st_size for file in event_files(self._folder)}

    def close(self) -> None:
        """Write all out and close the file.

        Raises:
            OSError: It cannot be written.
        """
        self._writer.close()


def _is_note(event: Event) -> bool:
    return any(value.tag.partition("/")[0] == _NOTES for value in event.summary.value)


def _wait_for_newer_name(folder: Path) -> None:
    """Wait for the next second where the newest file is of this one.

    TensorBoard reads files in the order of their names, which hold the second they were made in,
    and does not come back to one once there is a later one.
    """
    if files := event_files(folder):
        second = int(files[-1].name.split(".")[3])
        while second == int(now := time.time()):
            time.sleep(second + 1 - now)
