"""A run from start to end: its order, what a resume restores, its log."""
