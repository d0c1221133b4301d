"""The steps of an epoch, and what ends a run before its last one."""
