"""The table ``[plugins.settings.tensorboard]``."""

from typing import Annotated

import attrs

from pymodules_core import Range


@attrs.frozen(kw_only=True)
class TensorboardSettings:
    """What is logged besides the means of each epoch.

    Attributes:
        every_n_steps: Log train metrics and learning rates of the first and every n-th step.
        histograms: Patterns of module names whose weights are shown after each epoch.
    """

    # Reading a metric waits for the device: at 50 that is lost in the noise, and a curve of an hour
    # still has thousands of points. Lightning logs as often.
    every_n_steps: Annotated[int, Range(minimum=1)] = 50
    histograms: tuple[str, ...] = ()
