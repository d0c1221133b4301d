"""What ``pymodules ckpt`` does: look at pools and change them outside a run."""
