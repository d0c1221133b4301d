"""Executes the files of an experiment under private names.

Each file is imported once per ``ExperimentFiles``, as
``pymodules_core.discovery.module_files.<key>.modules.<name>``. The key holds the folder's path, so
a worker process that unpickles a class of such a file finds it by name alone, under fork, spawn and
forkserver; and no file shadows anything, be it called ``json.py``. A counter in the key gives every
pool its own copies: two runs in one process never train the same object.

``from modules.encoder import module`` inside these files is answered by an ``__import__`` that only
they see, through their own ``__builtins__``. So nothing is put into ``sys.modules`` under the name
``modules``, experiments do not see each other, and imports inside functions work later, too.
"""

import sys

from pymodules_core.discovery.scan.import_files import ExperimentFiles, isolated_imports
from pymodules_core.discovery.scan.importer import ExperimentFinder

__all__ = ["ExperimentFiles", "isolated_imports"]

# The one registration at import of this package: a child process reaches it only by importing the
# parent package of a private name, so there is no later moment.
if not any(isinstance(finder, ExperimentFinder) for finder in sys.meta_path):
    sys.meta_path.append(ExperimentFinder(__name__))
