"""From modules to commits: what is saved, staged, and written by a thread."""
