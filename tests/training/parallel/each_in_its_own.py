"""Trains in several processes, each with a data home and a folder of packages of its own.

Prints what each of them raised.
"""

import json
import os
import sys
from pathlib import Path

from pymodules_core import Processes, Trainer
from pymodules_core.errors import PymodulesError
from pymodules_core.training.run_output.console import SilentPrinter


def outcome_of(folder: Path, processes: Processes) -> list[str] | None:
    """Train ``exp`` in ``<folder>/<rank>``; give what it raised."""
    own = folder / str(processes.rank)
    sys.path.insert(0, str(own / "site"))
    os.environ["OWN_SEED"] = str(processes.rank)
    trainer = Trainer("exp", data_home=own / "data", reporter=SilentPrinter(), processes=processes)
    try:
        trainer.fit()
    except PymodulesError as error:
        return [type(error).__name__, str(error)]
    finally:
        sys.path.remove(str(own / "site"))
    return None


def main():
    """Print the name of each folder, and what each process raised."""
    with Processes.join() as processes:
        for folder in map(Path, sys.argv[1:]):
            found = processes.gather(outcome_of(folder, processes))
            if processes.is_first:
                print(json.dumps([folder.name, found]))  # noqa: T201  for the test


if __name__ == "__main__":
    main()
