"""One checkpoint file: its state dict, digest, buffer, and checks."""
