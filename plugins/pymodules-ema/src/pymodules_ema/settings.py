"""The table ``[plugins.settings.ema]``."""

from typing import Annotated, Any, Literal

import attrs

from pymodules_core import Range
from pymodules_core.errors import SettingsError

SUFFIX = "_ema"


def average_name(source: str) -> str:
    """Return the name of the module that holds the average of ``source``."""
    return f"{source}{SUFFIX}"


def _check_names(_: object, attribute: "attrs.Attribute[Any]", names: tuple[str, ...]) -> None:
    for name in names:
        stem = name.removesuffix(SUFFIX)
        if not name.isidentifier():
            what, fix = f"{name!r} is not a name of a module", "write the names of modules"
        elif names.count(name) > 1:
            what, fix = f"{name!r} is named {names.count(name)} times", "name it once"
        elif stem != name and stem in names:
            what = f"{name!r} is the average of {stem!r}, and an average is not averaged again"
            fix = f"remove {name!r}"
        else:
            continue
        raise SettingsError(what, key=attribute.name, found=name, fix=fix)


@attrs.frozen(kw_only=True)
class EmaSettings:
    """What to average, and how.

    Attributes:
        modules: Names of the modules to average.
        decay: Share of the average that stays at each update, between 0 and 1.
        warmup: Let the decay grow with the updates, up to ``decay``.
        update_every_n_steps: Average in every n-th update of the module by its optimizer.
        start_step: Up to this update of the module the average is a plain copy of it.
        buffers: ``"copy"`` takes buffers over as they are, ``"average"`` averages those of floating
            point.
    """

    modules: tuple[str, ...] = attrs.field(default=(), validator=_check_names)
    decay: Annotated[float, Range(above=0, below=1)] = 0.999
    warmup: bool = True
    update_every_n_steps: Annotated[int, Range(minimum=1)] = 1
    start_step: Annotated[int, Range(minimum=0)] = 0
    buffers: Literal["copy", "average"] = "copy"

    def decay_at(self, seen: int) -> float | None:
        """Return the decay of one update.

        The warm-up is ``min(decay, (1 + t) / (10 + t))`` at the t-th average, counted from 0, as in
        ``tf.train.ExponentialMovingAverage`` with ``num_updates``: the initial weights, which no
        data has seen, fade in tens of updates instead of ``1 / (1 - decay)``.

        Args:
            seen: Updates of the module so far, this one included.

        Returns:
            0 for a plain copy, and None where the average stays as it is.
        """
        if seen % self.update_every_n_steps:
            return None
        if seen <= self.start_step:
            return 0.0
        if not self.warmup:
            return self.decay
        averages = (seen - self.start_step - 1) // self.update_every_n_steps
        return min(self.decay, (1 + averages) / (10 + averages))
