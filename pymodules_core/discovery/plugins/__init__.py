"""Installed plugins and the task: found, loaded, called, named where they fail."""
