"""The bytes of checkpoint files, made as fast as memory allows.

All that knows the layout in which ``torch.save`` writes stands behind this wall, whose face are
``make_file``, ``Staging`` and ``Pages``. ``FileBuffer`` lays a file out once and fills its tensors
again and again, which depends on how torch writes. ``PlainFile`` lets ``torch.save`` write, and
takes its place where torch writes otherwise than the buffer expects.
"""

from pymodules_core.checkpoints.file_buffer.making import CheckpointFile, Staging, make_file
from pymodules_core.checkpoints.file_buffer.pinned_memory import Pages

__all__ = ["CheckpointFile", "Pages", "Staging", "make_file"]
