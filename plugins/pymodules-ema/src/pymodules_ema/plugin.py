"""The hooks of this package. Nothing here imports torch before a pool is built."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pymodules_core import DiscoveryContext, ModuleSpec, hookimpl
from pymodules_core.errors import SettingsError, closest_match, list_words
from pymodules_ema.settings import EmaSettings, average_name

if TYPE_CHECKING:
    from torch import nn

    from pymodules_core import Run
    from pymodules_ema.average import Average


class Ema:
    """Provides ``<name>_ema`` for each module that is named, and updates it after train steps.

    Args:
        settings: What to average, and how.
    """

    Settings = EmaSettings

    def __init__(self, settings: EmaSettings) -> None:
        self._settings = settings
        self._key = ""
        self._copies: dict[str, nn.Module] = {}
        self._averages: dict[str, Average] = {}
        # Updates of each source by its optimizers: on the host, so that no step waits for a device.
        self._seen: dict[str, int] = {}

    @hookimpl
    def provide_module(self, context: DiscoveryContext) -> Iterator[ModuleSpec]:
        """Provide the averages."""
        self._key = f"{context.settings_key}.modules"
        for source in self._settings.modules:
            yield ModuleSpec(
                name=average_name(source),
                factory=self._factory(source, context),
                settings={"mode": "eval"},
                weights=source,
                follows=source,
                description=f"Exponential moving average of {source}.",
            )

    @hookimpl
    def weights_ready(self, run: "Run") -> None:
        """Let each average begin as its source, but for one with weights of its own to load."""
        self._follow(run)
        self._seen = dict.fromkeys(self._averages, 0)
        for average in self._averages.values():
            if run.module_pool.settings[average.name].weights_source is None:
                average.restart()

    @hookimpl
    def run_started(self, run: "Run") -> None:
        """Start averages that are new in a resumed run from their sources as they are now."""
        if run.resumed_step is None:
            return
        from pymodules_ema.resuming import committed_modules  # noqa: PLC0415  imports torch

        self._follow(run)
        committed = committed_modules(run)
        for source, average in self._averages.items():
            if average.name in committed:
                # Without a count the commit is not the trainer's; a warm-up is not to begin again.
                self._seen.setdefault(source, run.step)
                continue
            self._seen[source] = 0
            if run.module_pool.settings[average.name].weights_source is None:
                average.restart()

    @hookimpl
    def train_step_finished(self, run: "Run", stepped: frozenset[str]) -> None:
        """Average the sources that this step updated."""
        if not stepped or not self._averages:
            return
        optimizers = run.optimizers
        for source, average in self._averages.items():
            if any(average.is_trained_by(name, optimizers[name]) for name in stepped):
                seen = self._seen[source] = self._seen.get(source, 0) + 1
                decay = self._settings.decay_at(seen)
                if decay is not None:
                    average.update(decay)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of updates; the averages themselves are modules of the pool."""
        return {"seen": dict(self._seen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the counts back."""
        self._seen = {name: state["seen"][name] for name in state["seen"]}

    def _factory(self, source: str, context: DiscoveryContext) -> "Callable[..., nn.Module]":
        def build(module_pool: "Mapping[str, nn.Module]") -> "nn.Module":
            from pymodules_ema.average import copy_for_average  # noqa: PLC0415  imports torch

            averages = {average_name(one) for one in self._settings.modules}
            others = sorted(set(module_pool) - averages)
            if source not in others:
                raise context.locate(_no_module(source, others, self._key))
            copy = copy_for_average(module_pool[source], name=source)
            self._copies[source] = copy
            return copy

        return build

    def _follow(self, run: "Run") -> None:
        """Pair each average of the run with its source.

        One that is excluded, or that another provider gives, was not made here.

        Raises:
            SettingsError: A source never changes, or its average may not.
            BuildError: A source is not what it was when its copy was made.
        """
        from pymodules_ema.average import Average  # noqa: PLC0415  imports torch

        pool = run.module_pool
        for source, copy in self._copies.items():
            name = average_name(source)
            if pool.is_frozen(source):
                raise run.experiment.locate(
                    SettingsError(
                        f"{self._key}: module {source!r} is frozen, so its average would be itself",
                        key=self._key,
                        found=source,
                        fix=f"remove {source!r}, or train it",
                    )
                )
            if pool.is_frozen(name):
                key = f"modules.settings.{name}.frozen"
                raise run.experiment.locate(
                    SettingsError(
                        f"{key}: an average changes after every step, and a frozen module may not",
                        key=key,
                        found=True,
                        fix="remove it: an average has no gradients anyway",
                    )
                )
            theirs, ours = (pool.settings[one].sharing.kind for one in (source, name))
            if "fsdp" in {theirs, ours} and theirs != ours:
                key = f"modules.settings.{name}.parallel"
                raise run.experiment.locate(
                    SettingsError(
                        f"{key}: {ours!r}, and {source!r} has {theirs!r}: an average follows its "
                        "source part by part",
                        key=key,
                        found=ours,
                        fix="remove it: the average is shared as its source is",
                    )
                )
            self._averages[source] = Average(
                pool[source],
                copy,
                name=name,
                averages_buffers=self._settings.buffers == "average",
            )


def _no_module(name: str, others: list[str], key: str) -> SettingsError:
    near = closest_match(name, others)
    return SettingsError(
        f"{key}: there is no module {name!r} in the pool; there are: {list_words(others)}",
        key=key,
        found=name,
        closest=near,
        fix=None if near else f"remove {name!r}, or add the module",
    )
