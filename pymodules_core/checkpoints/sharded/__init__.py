"""Modules saved in shards: each process writes its part, and whoever reads puts them together.

The shards are what ``torch.distributed.checkpoint`` writes as safetensors: nothing in them is ever
executed, as its own format with pickled metadata would be. An index beside them, a plain ``.pt`` of
primitives and small tensors, says how they make a state dict.
"""
