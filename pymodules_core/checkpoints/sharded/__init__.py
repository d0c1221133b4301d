"""Modules saved in shards: each process writes its part, and whoever reads puts them together.

The shards are what ``torch.distributed.checkpoint`` writes as safetensors: nothing in them is ever
executed, as its own format with pickled metadata would be. An index beside them, a plain ``.pt`` of
primitives and small tensors, says how they make a state dict.
"""

from pymodules_core.checkpoints.sharded.chunks import chunks_in_bytes, chunks_in_file
from pymodules_core.checkpoints.sharded.read import Like, read_shards
from pymodules_core.checkpoints.sharded.write import Shard, index_of, layout_of, write_shards

__all__ = [
    "Like",
    "Shard",
    "chunks_in_bytes",
    "chunks_in_file",
    "index_of",
    "layout_of",
    "read_shards",
    "write_shards",
]
