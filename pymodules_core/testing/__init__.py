"""For those who write plugins: experiments of strings, real steps, what a plugin has to fulfil.

pytest finds the fixtures of ``plugin`` by itself where the package is installed. Names are loaded
when first used: a test run that has nothing to do with pymodules pays nothing.
"""

from typing import TYPE_CHECKING

from pymodules_core.lazy import lazy_names

if TYPE_CHECKING:
    from pymodules_core.testing.conformance import assert_plugin_conforms as assert_plugin_conforms
    from pymodules_core.testing.conformance import check_plugin as check_plugin
    from pymodules_core.testing.distributions import write_distribution as write_distribution
    from pymodules_core.testing.experiments import TINY_MODULE as TINY_MODULE
    from pymodules_core.testing.experiments import TINY_TASK as TINY_TASK
    from pymodules_core.testing.experiments import write_experiment as write_experiment
    from pymodules_core.testing.steps import TrainedSteps as TrainedSteps
    from pymodules_core.testing.steps import train_steps as train_steps

_NAMES = {
    "pymodules_core.testing.conformance": ["assert_plugin_conforms", "check_plugin"],
    "pymodules_core.testing.distributions": ["write_distribution"],
    "pymodules_core.testing.experiments": ["TINY_MODULE", "TINY_TASK", "write_experiment"],
    "pymodules_core.testing.steps": ["TrainedSteps", "train_steps"],
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_HOMES)

if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
