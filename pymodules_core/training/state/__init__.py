"""What a run has to know to go on as if it had never stopped, as tensors and primitives."""
