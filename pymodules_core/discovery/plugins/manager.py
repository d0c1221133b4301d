"""Holds the plugins of one run: loads them, asks them for modules, gives out their hooks.

Entry points are loaded by a loop of our own and hooks are called one implementation at a time, so
that a broken plugin is named and never hides the others.
"""

import inspect
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pluggy

from pymodules_core.discovery.isolation.global_state import guard_global_state, keep_random_streams
from pymodules_core.discovery.isolation.slow_calls import watch_call
from pymodules_core.discovery.plugins.entry_points import FoundPlugin, find_entry_points
from pymodules_core.discovery.plugins.implementations import (
    HookCaller,
    HookImplementation,
    find_argument_fault,
    find_hook_fault,
    materialise_specs,
)
from pymodules_core.discovery.plugins.objects import PluginFaultError, make_instance, make_settings
from pymodules_core.discovery.plugins.records import (
    Fault,
    PluginFailure,
    PluginFilter,
    PluginRecord,
    PluginState,
    fault_of,
    import_fault_of,
)
from pymodules_core.discovery.scan.import_files import ExperimentFiles
from pymodules_core.discovery.scan.scanner import SCANNER_NAME, DirectoryScanner
from pymodules_core.errors import SettingsError
from pymodules_core.experiment import Experiment
from pymodules_core.hookspecs import HOOK_FAMILIES, PROJECT_NAME
from pymodules_core.settings import PluginsSettings
from pymodules_core.specs import CodeOrigin, DiscoveryContext, Locator, ModuleSpec

logger = logging.getLogger("pymodules_core")

_STATE_FUNCTIONS = ("state_dict", "load_state_dict")


class PluginManager:
    """The plugins of one discovery.

    Args:
        settings: ``[plugins]`` of the experiment.
        files: The experiment's files, or None outside an experiment.
        experiment_dir: The experiment's folder.
        data_home: The data home.
        load_installed: Whether to load entry points at all; ``--no-plugins`` turns it off.
        locate: Says where the setting behind an error was written.

    Raises:
        SettingsError: A table of ``[plugins.settings]`` does not fit its plugin.

    Attributes:
        records: All plugins, inactive ones included: built-in first, then sorted by name.
        files: The experiment's files.
        loads_installed: Whether entry points are loaded.
    """

    def __init__(
        self,
        *,
        settings: PluginsSettings | None = None,
        files: ExperimentFiles | None = None,
        experiment_dir: Path | None = None,
        data_home: Path = Path("data"),
        load_installed: bool = True,
        locate: Locator = lambda error: error,
    ) -> None:
        self.files = files
        self.records: list[PluginRecord] = []
        self._settings = settings or PluginsSettings()
        self._filter = PluginFilter(self._settings)
        self.loads_installed = load_installed
        self._context = DiscoveryContext(
            experiment_dir=experiment_dir, data_home=data_home, locate=locate
        )
        self._pluggy = HookCaller(PROJECT_NAME)
        self._stateful: set[str] = set()
        for family in HOOK_FAMILIES:
            self._pluggy.add_hookspecs(family)
        self._load_scanner()
        if load_installed:
            for found in find_entry_points():
                self._load(found)

    @classmethod
    def for_experiment(
        cls, experiment: Experiment, *, load_installed: bool = True
    ) -> "PluginManager":
        """Load the plugins that an experiment's settings leave in."""
        return cls(
            settings=experiment.settings.plugins,
            files=ExperimentFiles(experiment.path / "pymodules"),
            experiment_dir=experiment.path,
            data_home=experiment.data_home,
            load_installed=load_installed,
            locate=experiment.locate,
        )

    def register(
        self, plugin: object, *, record: PluginRecord, undecorated: bool = False
    ) -> PluginRecord:
        """Add a plugin object.

        Args:
            plugin: A module, an instance, or a class to make one of, with hook implementations.
            record: What is known of it.
            undecorated: Functions named after a hook count without ``hookimpl``.

        Returns:
            ``record``, in state ``failed`` with the reason where the plugin does not fit.

        Raises:
            SettingsError: Its table of ``[plugins.settings]`` does not fit it.
        """
        self.records.append(record)
        if undecorated:
            self._pluggy.undecorated.add(id(plugin))
            self._register(plugin, record, is_task=True)
        else:
            self._set_up(plugin, record)
        return record

    def implementations(self, hook_name: str) -> list[HookImplementation]:
        """Return the active implementations of a hook, in the order of plugin names."""
        records = {record.name: record for record in self.records}
        caller: pluggy.HookCaller = getattr(self._pluggy.hook, hook_name)
        found = [
            HookImplementation(records[impl.plugin_name], impl.function, tuple(impl.argnames))
            for impl in caller.get_hookimpls()
        ]
        return sorted(found, key=lambda implementation: implementation.record.name)

    def stateful(self) -> list[tuple[PluginRecord, Any]]:
        """Return the active plugins that have ``state_dict`` and ``load_state_dict``."""
        plugins = ((record, self._pluggy.get_plugin(record.name)) for record in self.records)
        return [(record, plugin) for record, plugin in plugins if record.name in self._stateful]

    def provided_specs(self) -> list[ModuleSpec]:
        """Ask every provider for its modules.

        A package's failure drops the package and is recorded; the scanner's is the user's own
        mistake and is raised.

        Returns:
            Specs with their origins, sorted by name and then by plugin; names may repeat.
        """
        specs: list[ModuleSpec] = []
        for implementation in self.implementations("provide_module"):
            specs += self._ask(implementation)
        return sorted(specs, key=lambda spec: spec.name)

    def unmatched(self) -> list[tuple[str, str]]:
        """Return patterns and tables of ``[plugins]`` that mean no plugin, after their keys."""
        return self._filter.find_unmatched(self.records) if self.loads_installed else []

    def _ask(self, implementation: HookImplementation) -> list[ModuleSpec]:
        record = implementation.record
        context = attrs.evolve(
            self._context, settings=record.settings, settings_key=record.settings_key
        )
        try:
            with _isolated(f"provide_module of plugin {record.origin}"):
                specs = materialise_specs(implementation({"context": context}))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # What the scanner raises is the user's own.
            if record.is_builtin or record.blames_settings(error):
                raise
            self._drop(record, "provide_module", fault_of(error), error)
            return []
        if not record.is_builtin:
            specs = [attrs.evolve(spec, origin=record.origin) for spec in specs]
        record.modules = sorted(spec.name for spec in specs)
        return specs

    def _load_scanner(self) -> None:
        record = PluginRecord(
            name=f"pymodules-core:{SCANNER_NAME}",
            origin=CodeOrigin(SCANNER_NAME),
            target="pymodules_core.discovery.scan.scanner:DirectoryScanner",
            is_builtin=True,
        )
        self.records.append(record)
        record.state = self._filter.state_of(record)
        if record.state is PluginState.ACTIVE and self.files is not None:
            self._register(DirectoryScanner(self.files), record)
        else:
            record.hooks = ["provide_module"]

    def _load(self, found: FoundPlugin) -> None:
        record = found.record
        self.records.append(record)
        record.state = self._filter.state_of(record)
        if record.state is not PluginState.ACTIVE:
            return
        if found.fault is not None:
            reason = f"{type(found.fault).__name__}: {found.fault}"
            self._drop(record, "metadata", (reason, found.fix), found.fault)
            return
        # The last line of a process that ends in the import.
        logger.debug("importing plugin %s", record.origin)
        start = time.perf_counter()
        with _isolated(f"importing plugin {record.origin}"):
            try:
                plugin = found.load()
            except KeyboardInterrupt:
                raise
            # SystemExit too: a plugin that calls sys.exit at import must not end the host.
            except BaseException as error:  # noqa: BLE001  recorded with its origin
                fault = import_fault_of(error, record.target, record.origin.provider)
                self._drop(record, "import", fault, error)
            else:
                self._set_up(plugin, record)
        record.load_ms = (time.perf_counter() - start) * 1000

    def _set_up(self, plugin: object, record: PluginRecord) -> None:
        """Build a plugin's settings and the instance of a class, and register it."""
        try:
            make_settings(plugin, record, self._settings.settings, self._context.locate)
            if inspect.isclass(plugin):
                plugin = make_instance(plugin, record.settings)
            self._register(plugin, record)
        except PluginFaultError as fault:
            self._drop(record, fault.stage, (fault.reason, fault.fix), fault.__cause__)
        except SettingsError:
            raise
        except Exception as error:  # noqa: BLE001  to look at an attribute may run code of its own
            self._drop(record, "hooks", fault_of(error), error)

    def _register(self, plugin: object, record: PluginRecord, *, is_task: bool = False) -> None:
        try:
            self._pluggy.register(plugin, record.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            reason = str(error).replace("\n", " ")
            self._drop(record, "hooks", find_argument_fault(plugin) or (reason, None), error)
            return
        callers = self._pluggy.get_hookcallers(plugin) or []
        if fault := find_hook_fault(plugin, callers, is_task=is_task):
            self._drop(record, "hooks", fault, None)
            return
        record.hooks = sorted(caller.name for caller in callers if caller.has_spec())
        if all(callable(getattr(plugin, name, None)) for name in _STATE_FUNCTIONS):
            self._stateful.add(record.name)

    def _drop(
        self, record: PluginRecord, stage: str, fault: Fault, error: BaseException | None
    ) -> None:
        reason, fix = fault
        record.state = PluginState.FAILED
        record.failure = PluginFailure(
            origin=record.origin,
            stage=stage,
            reason=reason,
            remedy=fix or f"pip install -U {record.origin.provider}",
            error=error,
        )
        self._stateful.discard(record.name)
        if self._pluggy.has_plugin(record.name):
            self._pluggy.unregister(name=record.name)
        logger.warning("%s", record.failure, exc_info=error)


@contextmanager
def _isolated(culprit: str) -> Iterator[None]:
    """Run code of a plugin so that it changes nothing for anybody else."""
    with watch_call(culprit), guard_global_state(culprit), keep_random_streams():
        yield
