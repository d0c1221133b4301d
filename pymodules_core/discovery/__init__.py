"""Finds what may join a run: installed plugins, module files, the task. Imports no torch."""

from pymodules_core.discovery.directory_scanner import DirectoryScanner
from pymodules_core.discovery.plugin_manager import PluginManager
from pymodules_core.discovery.plugin_records import PluginFailure, PluginRecord, PluginState

__all__ = ["DirectoryScanner", "PluginFailure", "PluginManager", "PluginRecord", "PluginState"]
