"""The ``pymodules`` command: one file a command, heavy imports inside the command's function."""
