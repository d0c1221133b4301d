"""For those who write plugins: experiments of strings, real steps, what a plugin has to fulfil.

pytest finds the fixtures of ``plugin`` by itself where the package is installed. Names are loaded
when first used: a test run that has nothing to do with pymodules pays nothing.
"""

from typing import TYPE_CHECKING

from pymodules_core.lazy import lazy_names

if TYPE_CHECKING:
    from pymodules_core.testing.conformance import assert_plugin_conforms, check_plugin
    from pymodules_core.testing.distributions import write_distribution
    from pymodules_core.testing.experiments import TINY_MODULE, TINY_TASK, write_experiment
    from pymodules_core.testing.steps import TrainedSteps, train_steps

__all__ = [
    "TINY_MODULE",
    "TINY_TASK",
    "TrainedSteps",
    "assert_plugin_conforms",
    "check_plugin",
    "train_steps",
    "write_distribution",
    "write_experiment",
]

__getattr__ = lazy_names(
    __name__,
    {
        "TINY_MODULE": "pymodules_core.testing.experiments",
        "TINY_TASK": "pymodules_core.testing.experiments",
        "TrainedSteps": "pymodules_core.testing.steps",
        "assert_plugin_conforms": "pymodules_core.testing.conformance",
        "check_plugin": "pymodules_core.testing.conformance",
        "train_steps": "pymodules_core.testing.steps",
        "write_distribution": "pymodules_core.testing.distributions",
        "write_experiment": "pymodules_core.testing.experiments",
    },
)
