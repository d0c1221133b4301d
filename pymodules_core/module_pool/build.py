"""Builds modules from specs: each under its own random stream, with errors that name its origin."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from pymodules_core.discovery.isolation.global_state import guard_global_state
from pymodules_core.discovery.isolation.slow_calls import watch_call
from pymodules_core.discovery.plugins.missing import FormerPlugins, unknown_module
from pymodules_core.discovery.scan.import_files import (
    fix_of_import,
    isolated_imports,
    place_in_folder,
)
from pymodules_core.discovery.scan.scanner import ModuleFile
from pymodules_core.discovery.selection.spec_settings import check_spec_settings
from pymodules_core.errors import (
    BuildError,
    ModuleFileError,
    PymodulesError,
    SettingsError,
    closest_match,
    list_words,
)
from pymodules_core.experiment import Experiment
from pymodules_core.missing_packages import missing_package_fix
from pymodules_core.rng import random_stream
from pymodules_core.settings import ModuleSettings
from pymodules_core.settings.structure import format_value
from pymodules_core.specs import FileOrigin, ModuleSpec

POOL_ARGUMENT = "module_pool"


class PoolBuilder(Mapping[str, nn.Module]):
    """Builds the modules of a pool on demand, each once.

    As a mapping it is what a factory's ``module_pool`` argument receives: asking for another module
    builds it first.

    Args:
        specs: One spec a name.
        seed: The run's seed.
        experiment: Gives ``[modules.args]`` and ``[modules.settings]``; None outside one.
    """

    def __init__(
        self, specs: Mapping[str, ModuleSpec], *, seed: int, experiment: Experiment | None
    ) -> None:
        self._former = FormerPlugins(experiment)
        self._specs = specs
        self._seed = seed
        self._experiment = experiment
        self._built: dict[str, nn.Module] = {}
        self._building: list[str] = []

    def __getitem__(self, name: str) -> nn.Module:
        """Return a module, built now if it is not yet.

        Raises:
            UnknownModuleError: No such module.
            BuildError: Factories ask for each other in a circle, or one failed.
        """
        if name in self._built:
            return self._built[name]
        if name not in self._specs:
            raise unknown_module(name, self._specs, self._former)
        if name in self._building:
            chain = " -> ".join([*self._building[self._building.index(name) :], name])
            raise BuildError(
                f"factories ask for each other's modules in a circle: {chain}",
                found=chain,
                fix="let one of them build what it needs itself",
            )
        self._building.append(name)
        try:
            self._built[name] = self._build(self._specs[name])
        finally:
            self._building.pop()
        return self._built[name]

    def __getattr__(self, name: str) -> nn.Module:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def settings(self, spec: ModuleSpec) -> ModuleSettings:
        """Check a spec's settings with the experiment's table laid over them.

        Raises:
            SettingsError: They are not valid.
            ModuleFileError: The module file that holds them fails.
        """
        with self._guarded(spec):
            raw = spec.settings() if callable(spec.settings) else spec.settings
        return check_spec_settings(raw, spec, self._experiment)

    def _build(self, spec: ModuleSpec) -> nn.Module:
        watched = f"building module {spec.name!r} of {spec.origin}"
        with self._guarded(spec), watch_call(watched):
            factory = _resolve(spec)
        arguments = self._arguments(spec, factory)
        with self._guarded(spec), watch_call(watched):
            module = factory(**arguments)
        if isinstance(module, nn.Module):
            return module
        fix, found = "give an instance of a torch.nn.Module subclass", format_value(module)
        if inspect.isclass(module):
            fix = f"write {module.__name__}() instead of {module.__name__}"
            found = f"class {module.__name__}"
        elif inspect.isroutine(module):
            fix = "call the function and give what it returns"
            found = f"function {module.__name__}"
        what = f"expected an instance of torch.nn.Module, found {found}"
        if isinstance(factory, ModuleFile):
            gives = "build returns no module" if factory.build else "module is not a module"
            raise ModuleFileError(f"{gives}: {what}", file=factory.file, found=module, fix=fix)
        raise BuildError(
            f"factory of module {spec.name!r} of {spec.origin}: {what}", found=module, fix=fix
        )

    def _arguments(self, spec: ModuleSpec, factory: Callable[..., Any]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if self._experiment is not None:
            given = self._experiment.settings.modules.args.get(spec.name, {})
        if isinstance(factory, ModuleFile):
            with self._guarded(spec):
                build = factory.build
            if build is None:
                if given:
                    raise self._refusal(
                        f"modules.args.{spec.name}",
                        f"{factory.file.name} defines module, which takes no arguments",
                        found=sorted(given),
                        fix="define def build(...) in the file instead of module",
                    )
                return {}
            factory = build
        try:
            parameters = inspect.signature(factory).parameters
        except (TypeError, ValueError):  # builtins and some classes have no signature
            return {**spec.arguments, **given}
        self._check_arguments(spec, given, parameters)
        own = {POOL_ARGUMENT: self} if POOL_ARGUMENT in parameters else {}
        return {**spec.arguments, **own, **given}

    def _check_arguments(
        self,
        spec: ModuleSpec,
        given: Mapping[str, Any],
        parameters: Mapping[str, inspect.Parameter],
    ) -> None:
        names = [
            name
            for name, p in parameters.items()
            if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY} and name != POOL_ARGUMENT
        ]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            self._refuse_unknown(spec, given, names)
        missing = [
            name
            for name in names
            if parameters[name].default is inspect.Parameter.empty
            and name not in given
            and name not in spec.arguments
        ]
        if missing:
            raise self._refusal(
                f"modules.args.{spec.name}",
                f"the factory of {spec.origin} needs {list_words(missing)}",
                fix=f"add to experiment.toml:  [modules.args.{spec.name}]  {missing[0]} = ...",
            )

    def _refuse_unknown(
        self, spec: ModuleSpec, given: Mapping[str, Any], names: Sequence[str]
    ) -> None:
        wrong = next((name for name in given if name not in names), None)
        if wrong is not None:
            near = closest_match(wrong, names)
            raise self._refusal(
                f"modules.args.{spec.name}.{wrong}",
                f"the factory takes no such argument; it takes: {list_words(names)}",
                found=wrong,
                closest=near,
                fix=None if near else f"remove {wrong!r}",
            )
        wrong = next((name for name in spec.arguments if name not in names), None)
        if wrong is not None:
            raise BuildError(
                f"factory of module {spec.name!r} of {spec.origin} takes no argument "
                f"{wrong!r}, which its spec gives; it takes: {list_words(names)}",
                found=wrong,
                closest=closest_match(wrong, names),
                fix="correct the arguments of the ModuleSpec in the plugin",
            )

    def _refusal(self, key: str, what: str, **facts: Any) -> SettingsError:
        """Return an error about ``[modules.args]``, with the place where that was written."""
        error = SettingsError(f"{key}: {what}", key=key, **facts)
        return self._experiment.locate(error) if self._experiment else error

    @contextmanager
    def _guarded(self, spec: ModuleSpec) -> Iterator[None]:
        """Run code of a provider: own random stream, guarded globals, errors with their origin.

        Files of an experiment own the process: what they set globally stays.
        """
        own_file = spec.origin.file if isinstance(spec.origin, FileOrigin) else None
        guard = guard_global_state(f"building module {spec.name!r} of {spec.origin}")
        try:
            with (
                isolated_imports(self._isolate_file),
                guard if own_file is None else nullcontext(),
                random_stream(self._seed, "module", spec.name),
            ):
                yield
        except PymodulesError as error:
            if error.file is None and own_file is not None:
                folder = own_file.absolute().parent
                error.file, error.line = place_in_folder(error, folder, otherwise=own_file)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            reason = ": ".join(filter(None, (type(error).__name__, str(error))))
            if own_file is not None:
                folder = own_file.absolute().parent
                file, line = place_in_folder(error, folder, otherwise=own_file)
                raise ModuleFileError(
                    f"building the module raises {reason}",
                    file=file,
                    line=line,
                    fix=fix_of_import(error, folder.parent),
                ) from error
            raise BuildError(
                f"building module {spec.name!r} of {spec.origin} raises {reason}",
                fix=f"{missing_package_fix(error) or 'report it to the package'}, or leave the "
                f'module out: [modules] exclude = ["{spec.name}"]',
            ) from error

    def _isolate_file(self, dotted_name: str, _: Path) -> AbstractContextManager[None]:
        """Return the stream of an executed file, which is its own, whoever imports it first."""
        return random_stream(self._seed, "module", dotted_name.rpartition(".")[2])


def _resolve(spec: ModuleSpec) -> Callable[..., Any]:
    if not isinstance(spec.factory, str):
        return spec.factory
    factory = f"factory {spec.factory!r} of module {spec.name!r} of {spec.origin}"
    try:
        target = pkgutil.resolve_name(spec.factory)
    except (Exception, SystemExit) as error:
        raise BuildError(
            f"{factory} cannot be imported: {type(error).__name__}: {error}",
            found=spec.factory,
            fix="check the dotted name in the plugin's provide_module",
        ) from error
    if not callable(target):
        raise BuildError(
            f"{factory} is {format_value(target)}, not a function",
            found=spec.factory,
            fix="name a function or class that gives the module",
        )
    result: Callable[..., Any] = target
    return result
