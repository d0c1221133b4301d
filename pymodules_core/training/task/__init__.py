"""The task, and what its steps are given: run, hooks, metrics, config, device."""
