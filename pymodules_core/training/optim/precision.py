"""``Precision``: in which dtype steps compute."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import torch


@attrs.frozen(kw_only=True)
class Precision:
    """How steps compute.

    Attributes:
        device_type: ``cpu`` or ``cuda``.
        dtype: The autocast dtype, or None for full precision.
    """

    device_type: str
    dtype: torch.dtype | None = None

    def autocast(self, *, is_enabled: bool = True) -> AbstractContextManager[Any]:
        """Return a context that computes in the dtype, or in full precision within such a one."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=is_enabled)
