"""Finds what may join a run: installed plugins, module files, the task. Imports no torch."""

from pymodules_core.discovery.plugins.manager import PluginManager
from pymodules_core.discovery.plugins.records import PluginRecord, PluginState

__all__ = ["PluginManager", "PluginRecord", "PluginState"]
