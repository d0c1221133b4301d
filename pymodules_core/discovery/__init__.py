"""Finds what may join a run: installed plugins, module files, the task. Imports no torch."""

from pymodules_core.discovery.plugins.manager import PluginManager
from pymodules_core.discovery.plugins.records import PluginFailure, PluginRecord, PluginState
from pymodules_core.discovery.scan.scanner import DirectoryScanner

__all__ = ["DirectoryScanner", "PluginFailure", "PluginManager", "PluginRecord", "PluginState"]
