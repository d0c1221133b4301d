"""Finds the class that a setting names, and compares arguments with its signature."""

import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pymodules_core.errors import SettingsError, closest_match, list_words, missing_package_fix
from pymodules_core.plugin_api import format_value
from pymodules_lightning.network_source import NetworkSource

_FIELD = "lightning_module"


def find_class(source: NetworkSource) -> type[Any]:
    """Import the class, which may be of ``lightning`` or of ``pytorch_lightning``.

    Raises:
        SettingsError: It cannot be imported, or is not a LightningModule.
    """
    text = source.settings.lightning_module
    package, _, path = text.partition(":")
    module = _import(package, source)
    target: Any = module
    for part in path.split("."):
        if not hasattr(target, part):
            raise _no_such_class(module, path, source)
        target = getattr(target, part)
    if not _is_lightning_module(target):
        found = f"the class {target.__name__}" if inspect.isclass(target) else format_value(target)
        raise source.error(
            _FIELD,
            f"expected a subclass of LightningModule, found {found}",
            found=text,
            fix="name one; any other class of a network is one line of a module file",
        )
    cls: type[Any] = target
    return cls


def check_arguments(cls: type[Any], arguments: Mapping[str, Any], source: NetworkSource) -> None:
    """Compare names of arguments with those that a class takes.

    Raises:
        SettingsError: One is not taken, or one without a default is not given.
    """
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):  # no signature to be had: the call will tell
        return
    named = {p.name: p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in arguments if not takes_any else ():
        if name not in named:
            near = closest_match(name, named)
            raise source.argument_error(
                name,
                f"{cls.__name__} takes no such argument; it takes: {list_words(named)}",
                found=name,
                closest=near,
                fix=None if near else f"remove {name!r}",
            )
    missing = [name for name, p in named.items() if p.default is p.empty and name not in arguments]
    if missing:
        raise source.error(
            "arguments",
            f"{cls.__name__} needs {list_words(missing)}",
            found=sorted(arguments),
            fix=f"arguments = {{ {missing[0]} = ... }}",
        )


def _import(package: str, source: NetworkSource) -> ModuleType:
    try:
        return importlib.import_module(package)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{package}.".startswith(f"{missing}."):
            what = f"{package!r} cannot be imported: there is no {missing!r}"
            fix = "install the package, or put the folder that holds it on PYTHONPATH"
        else:
            what = f"importing {package!r} raises {type(error).__name__}: {error}"
            fix = missing_package_fix(error) or "mend it, until python -c 'import " + (
                f"{package}' is silent"
            )
        raise source.error(_FIELD, what, found=source.settings.lightning_module, fix=fix) from error


def _no_such_class(module: ModuleType, path: str, source: NetworkSource) -> SettingsError:
    names = [name for name, value in vars(module).items() if _is_lightning_module(value)]
    near = closest_match(path, names)
    return source.error(
        _FIELD,
        f"{module.__name__!r} has no {path!r}; its LightningModules: {list_words(names)}",
        found=source.settings.lightning_module,
        closest=near and f"{module.__name__}:{near}",
        fix=None if near else "name one of them",
    )


def _is_lightning_module(value: object) -> bool:
    # By name: Lightning is two packages with a class each, and neither has to be the one in use.
    return isinstance(value, type) and any(
        base.__name__ == "LightningModule"
        and base.__module__.partition(".")[0] in {"lightning", "pytorch_lightning"}
        for base in value.__mro__[1:]
    )
