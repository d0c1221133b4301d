"""What a person writes: module settings and ``experiment.toml``, checked strictly."""

from pymodules_core.settings.experiment_settings import (
    CheckpointSettings,
    ExperimentSettings,
    ModulesSettings,
    OptimizerSettings,
    PluginsSettings,
    TrainSettings,
)
from pymodules_core.settings.module_settings import (
    CompileSettings,
    ModuleSettings,
    ParallelSettings,
    WeightsFromCkp,
    WeightsFromExp,
    structure_module_settings,
)
from pymodules_core.settings.strict import Range
from pymodules_core.settings.structure import structure

__all__ = [
    "CheckpointSettings",
    "CompileSettings",
    "ExperimentSettings",
    "ModuleSettings",
    "ModulesSettings",
    "OptimizerSettings",
    "ParallelSettings",
    "PluginsSettings",
    "Range",
    "TrainSettings",
    "WeightsFromCkp",
    "WeightsFromExp",
    "structure",
    "structure_module_settings",
]
