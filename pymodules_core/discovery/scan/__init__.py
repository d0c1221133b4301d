"""The files of an experiment: found, read without executing them, imported."""

import sys

from pymodules_core.discovery.scan.importer import ExperimentFinder

# The one registration at import of this package: a child process reaches it only by importing the
# parent package of a private name, so there is no later moment.
if not any(isinstance(finder, ExperimentFinder) for finder in sys.meta_path):
    sys.meta_path.append(ExperimentFinder())
