"""Fixtures for the tests of plugins; pytest finds them where this package is installed.

Nothing is imported before a fixture is used.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pymodules_core.discovery import PluginManager
    from pymodules_core.experiment import Experiment
    from pymodules_core.module_pool import ModulePool
    from pymodules_core.testing.steps import TrainedSteps


@pytest.fixture
def make_experiment(tmp_path: Path) -> "Callable[..., Path]":
    """Write an experiment of strings: ``make_experiment("mine", toml=...)`` gives its folder.

    Takes what ``write_experiment`` takes, but for the data home, which is a folder of the test.
    """
    from pymodules_core.testing.experiments import write_experiment

    def make(name: str = "tiny", **sources: Any) -> Path:
        return write_experiment(tmp_path / "data", name, **sources)

    return make


@pytest.fixture
def make_plugin_manager(tmp_path: Path) -> "Callable[..., PluginManager]":
    """Make a plugin manager that sees nothing of what is installed.

    ``make_plugin_manager({"ema": Ema}, settings={"ema": {"decay": 0.9}})`` has the plugins given:
    Python modules, classes or instances by the name an entry point would have. ``experiment=path``
    adds the files of an experiment, and takes the settings from it.
    """
    from pymodules_core.discovery import PluginManager
    from pymodules_core.experiment import Experiment
    from pymodules_core.settings import PluginsSettings
    from pymodules_core.testing.under_test import register_objects

    def make(
        plugins: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        experiment: "Path | Experiment | None" = None,
    ) -> PluginManager:
        if experiment is not None:
            if settings is not None:
                raise ValueError("settings come from the experiment: give one of the two")
            opened = Experiment.open(experiment)
            manager = PluginManager.for_experiment(opened, load_installed=False)
            register_objects(manager, plugins or {})
            return manager
        tables = {name: dict(table) for name, table in (settings or {}).items()}
        manager = PluginManager(
            settings=PluginsSettings(settings=tables),
            data_home=tmp_path / "data",
            load_installed=False,
        )
        register_objects(manager, plugins or {})
        for name in tables:
            if not any(record.is_called(name) for record in manager.records):
                raise ValueError(f"settings[{name!r}] are of no plugin that is given")
        return manager

    return make


@pytest.fixture
def make_pool(make_plugin_manager: "Callable[..., PluginManager]") -> "Callable[..., ModulePool]":
    """Build the pool of an experiment: its files, and the plugins given, none that is installed.

    ``make_pool(path, {"ema": Ema})``; initial weights that settings ask for are loaded.
    """
    from pymodules_core.initial_weights import load_initial_weights
    from pymodules_core.module_pool import ModulePool

    def make(experiment: Path, plugins: Mapping[str, object] | None = None) -> ModulePool:
        manager = make_plugin_manager(plugins, experiment=experiment)
        pool = ModulePool.discover(experiment, plugins=manager)
        load_initial_weights(pool)
        return pool

    return make


@pytest.fixture
def train_steps() -> "Callable[..., TrainedSteps]":
    """Train a few real steps, stop, and continue: ``train_steps(path, 5, plugins={"ema": Ema})``.

    It is the function of that name in ``pymodules_core.testing``.
    """
    from pymodules_core.testing.steps import train_steps

    return train_steps


@pytest.fixture
def install_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "Iterator[Callable[..., Path]]":
    """Write a distribution that discovery sees as installed, until the test is over.

    ``install_distribution("acme-nets", source, version="1.2")`` gives its ``dist-info`` folder; it
    takes what ``write_distribution`` takes. ``folder`` is one of ``sys.path`` by default.
    """
    from pymodules_core.testing.distributions import write_distribution

    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(name: str, source: str, *, folder: Path = site, **more: Any) -> Path:
        info = write_distribution(folder, name, source, **more)
        # A folder that changes twice within one tick of the clock looks as it did.
        importlib.invalidate_caches()
        return info

    before = set(sys.modules)
    yield install
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        # The next test may write another package of that name.
        if file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]
