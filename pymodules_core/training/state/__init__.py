"""What a run has to know to continue as if it had never stopped, as tensors and primitives."""
