"""The files of an experiment: found, read without executing them, imported."""
