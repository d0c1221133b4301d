"""What a run writes beside its checkpoints: records, console, result, sources."""
