"""``ModulePool``: the named modules of a run, with the settings and origin of each."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from pymodules_core.discovery import PluginManager
from pymodules_core.discovery.plugins.missing import FormerPlugins, no_modules, unknown_module
from pymodules_core.discovery.selection.required_plugins import explain_left_out, require_plugins
from pymodules_core.discovery.selection.selection import select_specs
from pymodules_core.discovery.selection.spec_settings import share_like_sources
from pymodules_core.errors import SharedParameterError
from pymodules_core.experiment import Experiment
from pymodules_core.module_pool.build import PoolBuilder
from pymodules_core.module_pool.migration import Migrator, find_migrator
from pymodules_core.names import check_module_name
from pymodules_core.settings import ModuleSettings, structure_module_settings
from pymodules_core.specs import CodeOrigin, Origin, WeightsOrigin

if TYPE_CHECKING:
    from typing import Self

    from pymodules_core.discovery.scan.import_files import ExperimentFiles


@attrs.frozen(eq=False, kw_only=True)
class PoolEntry:
    """One module of the pool.

    Attributes:
        name: Its name.
        module: The module itself.
        settings: Its checked settings.
        origin: Where it came from.
        built_from: Where its factory took weights from; empty where it did not.
        state_version: Version of the layout of its weights.
        migrator: Brings weights of older versions into that layout; None where its provider has
            no versions.
    """

    name: str
    module: nn.Module
    settings: ModuleSettings
    origin: Origin
    built_from: str = ""
    state_version: int = 1
    migrator: Migrator | None = None

    @property
    def kind(self) -> type[nn.Module]:
        """The class that was built; several processes put one of theirs before it."""
        return getattr(type(self.module), "built_as", type(self.module))

    @property
    def weights_text(self) -> str | None:
        """Where its initial weights come from; None for weights as built."""
        return self.settings.weights_text or self.built_from or None

    @property
    def parameter_count(self) -> int:
        """Elements of the module's parameters, shared ones once; lazy ones have none yet."""
        return sum(
            p.numel() for p in self.module.parameters() if not isinstance(p, UninitializedParameter)
        )


class ModulePool(Mapping[str, nn.Module]):
    """Maps names to modules, sorted by name; ``pool.encoder`` is ``pool["encoder"]``.

    Modules come frozen or not as their settings say. Weights that settings ask for are not loaded
    yet: ``load_initial_weights(pool)`` does that, and until then the names are in
    ``pending_weights``.

    Args:
        entries: The modules, in any order.
        data_home: Where weights are looked up.
        seed: The seed the modules were built with.
        experiment: The experiment they belong to; None for those that a program built itself.

    Raises:
        SharedParameterError: A frozen and a trained module hold one parameter or buffer.

    Attributes:
        entries: Name to module, settings and origin.
        pending_weights: Names of modules whose initial weights are not loaded yet.
        weights_origins: Name to where the initial weights were loaded from.
    """

    def __init__(
        self,
        entries: Iterable[PoolEntry],
        *,
        data_home: Path = Path("data"),
        seed: int = 0,
        experiment: Experiment | None = None,
    ) -> None:
        self.entries: Mapping[str, PoolEntry] = {
            e.name: e for e in sorted(entries, key=lambda entry: entry.name)
        }
        self.data_home = data_home
        self.seed = seed
        self.experiment = experiment
        self._files: ExperimentFiles | None = None
        self._former = FormerPlugins(experiment)
        self.pending_weights = {
            name for name, e in self.entries.items() if e.settings.weights_source is not None
        }
        self.weights_origins: dict[str, WeightsOrigin] = {}
        # `pool.encoder` in every train step: a plain attribute costs a third of `__getattr__`.
        vars(self).update((name, entry.module) for name, entry in self.entries.items())
        self._refuse_half_frozen_tensors()
        for entry in self.entries.values():
            if entry.settings.frozen:
                # Not `requires_grad_()`, which lazy parameters refuse.
                for parameter in entry.module.parameters():
                    parameter.requires_grad = False
                entry.module.eval()

    @classmethod
    def discover(
        cls,
        experiment: "str | Path | Experiment",
        *,
        data_home: Path | None = None,
        seed: int | None = None,
        plugins: PluginManager | None = None,
    ) -> "Self":
        """Collect and build the modules of an experiment: its files and the installed plugins.

        Args:
            experiment: A name in the data home, a folder, or an opened experiment.
            data_home: Overrides the environment variable and ``./data``.
            seed: Overrides ``[train] seed``.
            plugins: Plugins loaded already; else they are loaded here.

        Raises:
            PymodulesError: Anything that keeps a module from being built, with where and why.
        """
        experiment = Experiment.open(experiment, data_home=data_home)
        plugins = plugins or PluginManager.for_experiment(experiment)
        provided = plugins.provided_specs()
        require_plugins(plugins, experiment)
        with explain_left_out(plugins):
            specs = select_specs(provided, experiment)
        if not specs:
            raise no_modules(experiment)
        seed = experiment.settings.train.seed if seed is None else seed
        by_name = {spec.name: spec for spec in specs}
        builder = PoolBuilder(by_name, seed=seed, experiment=experiment)
        # All settings before the first build: a typo is reported before minutes of construction.
        checked = share_like_sources(
            {name: builder.settings(spec) for name, spec in by_name.items()}, specs
        )
        entries = [
            PoolEntry(
                name=name,
                module=builder[name],
                settings=checked[name],
                origin=spec.origin or CodeOrigin(),
                built_from=spec.weights,
                state_version=spec.state_version,
                migrator=find_migrator(spec, plugins, seed=seed),
            )
            for name, spec in by_name.items()
        ]
        pool = cls(entries, data_home=experiment.data_home, seed=seed, experiment=experiment)
        # Imports inside functions of the files, and pickling, need the files as long as the pool.
        pool._files = plugins.files
        return pool

    @classmethod
    def from_modules(
        cls,
        modules: Mapping[str, nn.Module],
        *,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        data_home: Path = Path("data"),
    ) -> "Self":
        """Build a pool of modules that a program built itself.

        Args:
            modules: Name to module.
            settings: Name to settings dict, for those that need one.
            data_home: Where weights are looked up.

        Raises:
            InvalidNameError: A name is not allowed.
            SettingsError: Settings are not valid.
        """
        given = settings or {}
        entries = [
            PoolEntry(
                name=check_module_name(name),
                module=module,
                settings=structure_module_settings(given.get(name, {})),
                origin=CodeOrigin(),
            )
            for name, module in modules.items()
        ]
        return cls(entries, data_home=data_home)

    def __getitem__(self, name: str) -> nn.Module:
        """Return a module by name.

        Raises:
            UnknownModuleError: No such module.
        """
        try:
            return self.entries[name].module
        except KeyError:
            raise unknown_module(name, self.entries, self._former) from None

    def __getattr__(self, name: str) -> nn.Module:
        # Private names are never modules; answering them would break copy and pickle.
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.entries]

    def __repr__(self) -> str:
        lines = [
            f"  {name}: {type(entry.module).__name__}"
            f"{', frozen' if entry.settings.frozen else ''} ({entry.origin})"
            for name, entry in self.entries.items()
        ]
        return "\n".join(["ModulePool(", *lines, ")"])

    @property
    def settings(self) -> Mapping[str, ModuleSettings]:
        """Name to settings."""
        return {name: entry.settings for name, entry in self.entries.items()}

    @property
    def origins(self) -> Mapping[str, Origin]:
        """Name to origin."""
        return {name: entry.origin for name, entry in self.entries.items()}

    @property
    def shared_parameters(self) -> list[list[str]]:
        """Groups of ``module.parameter`` names that are one tensor in several modules."""
        groups: dict[int, list[str]] = {}
        for name, module in self.items():
            for key, parameter in module.named_parameters():
                groups.setdefault(id(parameter), []).append(f"{name}.{key}")
        return [group for group in groups.values() if len(group) > 1]

    def is_frozen(self, name: str) -> bool:
        """Return whether a module's settings freeze it."""
        return self.entries[name].settings.frozen

    def set_training(self, *, training: bool) -> None:
        """Put every module in its mode: frozen ones and those of mode ``eval`` never train."""
        # Two passes: a module may hold another one, and that one's settings win.
        for module in self.values():
            module.train(mode=training)
        for entry in self.entries.values():
            if entry.settings.frozen or entry.settings.mode == "eval":
                entry.module.eval()

    def to(self, device: torch.device) -> "Self":
        """Move every module to ``device``, in place."""
        for module in self.values():
            module.to(device)
        return self

    def _refuse_half_frozen_tensors(self) -> None:
        owners: dict[int, tuple[str, str]] = {}
        for name, module in self.items():
            for key, tensor in (*module.named_parameters(), *module.named_buffers()):
                other, other_key = owners.setdefault(id(tensor), (name, key))
                if self.is_frozen(other) != self.is_frozen(name):
                    frozen, trained = sorted((name, other), key=self.is_frozen, reverse=True)
                    kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
                    raise SharedParameterError(
                        f"frozen module {frozen!r} and trained module {trained!r} share a "
                        f"{kind}: {other}.{other_key} is {name}.{key}",
                        found=f"{name}.{key}",
                        fix="freeze both, train both, or copy the weights with "
                        "load_weights_from_exp",
                    )
