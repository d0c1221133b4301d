"""Curves, images, histograms and checkpoints of a run in TensorBoard."""
