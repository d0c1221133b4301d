"""``python -m pymodules_core`` is ``pymodules``."""

from pymodules_core.cli.main import main

if __name__ == "__main__":
    main()
