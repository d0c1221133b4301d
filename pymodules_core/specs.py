"""What a provider hands over: module specs, where each came from, and what it is given.

Specs are inert: nothing is imported or built before the pool is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from pymodules_core.errors import InvalidSpecError, SettingsError, display_path
from pymodules_core.names import check_module_name

if TYPE_CHECKING:
    from torch import nn

# Puts the place where the setting behind ``error.key`` was written into the error.
Locator: TypeAlias = Callable[[SettingsError], SettingsError]


@attrs.frozen
class FileOrigin:
    """A module file of the experiment."""

    file: Path

    @property
    def provider(self) -> str:
        """The name that ``[modules.override]`` takes for it."""
        return "files"

    def to_json(self) -> dict[str, str]:
        """Return kind and path; what a run executed, ``run.json`` has with its hash."""
        return {"kind": "file", "file": display_path(self.file)}

    def __str__(self) -> str:
        return display_path(self.file)


@attrs.frozen
class DistributionOrigin:
    """A plugin of an installed distribution."""

    distribution: str
    version: str
    entry_point: str

    @classmethod
    def from_json(cls, facts: object) -> "DistributionOrigin | None":
        """Read what ``to_json`` gave; None for anything else, since files may say anything."""
        if not isinstance(facts, Mapping) or facts.get("kind") != "distribution":
            return None
        values = (facts.get(field.name) for field in attrs.fields(cls))
        texts = [value for value in values if isinstance(value, str)]
        return cls(*texts) if len(texts) == len(attrs.fields(cls)) else None

    @property
    def provider(self) -> str:
        """The name that ``[modules.override]`` takes for it."""
        return self.distribution

    def to_json(self) -> dict[str, str]:
        """Return kind, distribution, version and entry point."""
        return {"kind": "distribution", **attrs.asdict(self)}

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point})"


@attrs.frozen
class CodeOrigin:
    """A module or plugin that a program handed over itself."""

    description: str = "code"

    @property
    def provider(self) -> str:
        """The name that ``[modules.override]`` takes for it."""
        return self.description

    def to_json(self) -> dict[str, str]:
        """Return kind and description."""
        return {"kind": "code", "description": self.description}

    def __str__(self) -> str:
        return self.description


@attrs.frozen(kw_only=True)
class WeightsOrigin:
    """Where a module's initial weights were loaded from.

    Attributes:
        digest: Of the content of the file.
        ckp_name: The file in ``module_ckps/`` of the data home; None for one of an experiment.
        experiment: The experiment it belongs to.
        pool: The checkpoint pool there.
        module: The module there.
        epoch: The epoch of the weights, None where that is not known.
    """

    digest: str
    ckp_name: str | None = None
    experiment: str | None = None
    pool: str | None = None
    module: str | None = None
    epoch: int | None = None


Origin: TypeAlias = FileOrigin | DistributionOrigin | CodeOrigin
SettingsSource: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


# eq=False: pluggy compares what it holds with ==, and two specs are never "the same".
@attrs.frozen(eq=False, kw_only=True)
class ModuleSpec:
    """How to build one named module.

    Attributes:
        name: A Python identifier that does not start with ``_``.
        factory: A callable that returns an ``nn.Module``, or ``"package.module:function"``, which
            is imported only when the pool is built. Keyword arguments come from
            ``[modules.args.<name>]``; a parameter named ``module_pool`` receives the other modules,
            each built when it is first asked for.
        arguments: Keyword arguments of the factory that the plugin chose, from its own settings for
            one; those of ``[modules.args.<name>]`` win.
        settings: The module's settings, or a function that gives them, called when the pool is
            built.
        weights: Where the factory itself takes weights from, in short; empty where it does not.
        description: One line for ``pymodules list``.
        state_version: Version of the layout of the module's weights: which keys and shapes its
            state dict has, and what they mean. Raise it by one with a release that changes them,
            and implement ``migrate_state``, which takes weights of older versions over.
        follows: Name of the module that this one is a copy of and follows through the training;
            empty for none. Several processes share it as they share that one, unless its own
            settings say how.
        origin: Where it came from; set by the host, whatever a plugin writes here.

    Raises:
        InvalidSpecError: If a field has the wrong type.
        InvalidNameError: If the name is not allowed.
    """

    name: str
    factory: "Callable[..., nn.Module] | str"
    arguments: Mapping[str, Any] = attrs.field(factory=dict)
    settings: SettingsSource = attrs.field(factory=dict)
    weights: str = ""
    description: str = ""
    state_version: int = 1
    follows: str = ""
    origin: Origin | None = None

    def __attrs_post_init__(self) -> None:
        check_module_name(self.name)
        if isinstance(self.factory, str):
            package, _, function = self.factory.partition(":")
            parts = [*package.split("."), *function.split(".")]
            if not all(part.isidentifier() for part in parts):
                raise self._fault(
                    "factory",
                    f"{self.factory!r} is not a dotted name",
                    "write 'package.module:function'",
                )
        elif not callable(self.factory):
            raise self._fault(
                "factory",
                "expected a function or 'package.module:function'"
                f", found {type(self.factory).__name__}",
                "pass a function that returns the module, not the module itself",
            )
        if not isinstance(self.arguments, Mapping):
            raise self._fault(
                "arguments",
                f"expected dict, found {type(self.arguments).__name__}",
                "pass a dict of keyword arguments, such as {'width': 64}",
            )
        if not isinstance(self.settings, Mapping) and not callable(self.settings):
            raise self._fault(
                "settings",
                f"expected dict, found {type(self.settings).__name__}",
                "pass a dict such as {'frozen': True}",
            )
        # By exact type: True is an int, and would be written into files as one.
        if type(self.state_version) is not int or self.state_version < 1:
            raise self._fault(
                "state_version",
                f"expected a whole number from 1 on, found {self.state_version!r}",
                "count the layouts of the module's weights from 1",
            )

    def _fault(self, field: str, fault: str, fix: str) -> InvalidSpecError:
        what = f"{field} of module {self.name!r}: {fault}"
        return InvalidSpecError(what, found=getattr(self, field), fix=fix)


@attrs.frozen(kw_only=True)
class DiscoveryContext:
    """What a provider of modules is given.

    Attributes:
        experiment_dir: The experiment's folder, or None outside one.
        data_home: The folder that holds ``experiments/`` and ``module_ckps/``.
        settings: This plugin's own table, ``[plugins.settings.<name>]``, empty if not given; an
            instance of the plugin's ``Settings`` where it has such a class.
        settings_key: Dotted key of that table, ``plugins.settings.<name>``, for messages.
        locate: Puts file and line of ``error.key`` into a ``SettingsError``, for a setting that
            turns out to be wrong: ``raise context.locate(SettingsError(..., key=...))``.
    """

    experiment_dir: Path | None
    data_home: Path
    settings: Any = attrs.field(factory=dict)
    settings_key: str = "plugins.settings"
    locate: Locator = attrs.field(default=lambda error: error, eq=False)
