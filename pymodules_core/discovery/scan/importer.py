"""The finder and loader of experiment files, and the ``__import__`` these files see."""

import base64
import builtins
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from pymodules_core.errors import CircularImportError, ModuleFileError, closest_match, list_words

PARENT_PACKAGE = "pymodules_core.discovery.scan"
MODULES = "modules"
_PREFIX = f"{PARENT_PACKAGE}.x"

Isolation = Callable[[str, Path], AbstractContextManager[None]]

# What surrounds the execution of each file; the pool builder sets random streams and guards here.
current_isolation: ContextVar[Isolation] = ContextVar(
    "current_isolation", default=lambda *_: nullcontext()
)
# Private names of the files being executed, outermost first.
_executing: ContextVar[tuple[str, ...]] = ContextVar("_executing", default=())


def encode_package(folder: Path, count: int) -> str:
    """Name the private package of a ``pymodules`` folder; ``count`` keeps copies apart."""
    key = base64.b32encode(os.fsencode(folder)).decode().rstrip("=").lower()
    return f"{_PREFIX}{key}_{count}"


def decode_package(key: str) -> Path:
    """Return the folder that the last part of a private package's name holds."""
    text = key[1:].rpartition("_")[0].upper()
    return Path(os.fsdecode(base64.b32decode(text + "=" * (-len(text) % 8))))


class ExperimentFinder:
    """Finds private names; any other name is none of its business."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Map a private name to a file, or to a package for a folder."""
        del path, target
        if not fullname.startswith(_PREFIX):
            return None
        key, *parts = fullname[len(_PREFIX) - 1 :].split(".")
        location = decode_package(key).joinpath(*parts)
        file = location.with_name(f"{location.name}.py")
        if parts and file.is_file():
            loader = ExperimentFileLoader(fullname, str(file))
            return importlib.util.spec_from_file_location(fullname, file, loader=loader)
        if location.is_dir():
            # An empty search path: Python's own finder must not load the files in our place.
            return importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        return None


class ExperimentFileLoader(importlib.machinery.SourceFileLoader):
    """Compiles from source each time: no ``__pycache__`` beside what a person writes.

    Attributes:
        sha256: Of the bytes that were compiled; empty before.
    """

    sha256 = ""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the file as it is now.

        Raises:
            ModuleFileError: It cannot be read.
        """
        import hashlib  # noqa: PLC0415  loads OpenSSL, which no listing needs

        del fullname
        try:
            source = self.get_data(self.path)
        except OSError as error:
            file = Path(self.path)
            # Where another file imports it, the line is that one's.
            raise ModuleFileError(
                f"{file.name} cannot be read: {error.strerror}", file=file, fix="make it readable"
            ) from error
        self.sha256 = hashlib.sha256(source).hexdigest()
        try:
            return self.source_to_code(source, self.path)
        except SyntaxError as error:
            # Of what is not a text Python names neither the file nor the line.
            error.filename = error.filename or self.path
            error.lineno = error.lineno or line_of_no_text(source)
            raise

    def exec_module(self, module: ModuleType) -> None:
        """Run the file in its isolation, with its own ``__import__``."""
        name = module.__name__
        package = ".".join(name.split(".")[: PARENT_PACKAGE.count(".") + 2])
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _make_import(package)}
        token = _executing.set((*_executing.get(), name))
        try:
            with current_isolation.get()(name.removeprefix(f"{package}."), Path(self.path)):
                exec(self.get_code(name), vars(module))  # noqa: S102  running the file is the job
        finally:
            _executing.reset(token)


def line_of_no_text(source: bytes) -> int | None:
    """Return the line of the first NUL byte, or else of the encoding that a source declares."""
    before, nul, _ = source.partition(b"\0")
    if nul:
        return before.count(b"\n") + 1
    head = enumerate(source.split(b"\n")[:2], start=1)
    return next((number for number, line in head if b"coding" in line), None)


def _make_import(package: str) -> Callable[..., Any]:
    def import_in_experiment(
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002  the builtin's own names
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        is_alias = level == 0 and name.split(".", maxsplit=1)[0] == MODULES
        if level == 0 and not is_alias:
            return builtins.__import__(name, globals, locals, fromlist or (), 0)
        if is_alias:
            name = target = f"{package}.{name}"
        else:
            parent = str((globals or {}).get("__package__", ""))
            target = importlib.util.resolve_name("." * level + name, parent)
        _refuse_cycle(target, fromlist or ())
        try:
            found = builtins.__import__(name, globals, locals, fromlist or (), level)
            return sys.modules[f"{package}.{MODULES}"] if is_alias and not fromlist else found
        except ModuleNotFoundError as error:
            if error.name != target:
                raise
            raise _missing_file(package, target, globals) from error

    return import_in_experiment


def _refuse_cycle(target: str, fromlist: Sequence[str]) -> None:
    executing = _executing.get()
    for name in (target, *(f"{target}.{item}" for item in fromlist)):
        if name in executing:
            cycle = [*executing[executing.index(name) :], name]
            chain = " -> ".join(step.rpartition(".")[2] for step in cycle)
            raise CircularImportError(
                f"module files import each other in a circle: {chain}",
                found=chain,
                fix="move what both need into a helper file, pymodules/modules/_<name>.py",
            )


def _missing_file(package: str, target: str, globals_: Mapping[str, Any] | None) -> ModuleFileError:
    folder = decode_package(package.rpartition(".")[2]).joinpath(
        *target.removeprefix(f"{package}.").split(".")[:-1]
    )
    wanted = target.rpartition(".")[2]
    there = sorted(path.stem for path in folder.glob("[!.]*.py") if path.is_file())
    return ModuleFileError(
        f"imports {wanted!r}, and there is no such file in {folder.name}/; "
        f"there are: {list_words(there)}",
        file=str((globals_ or {}).get("__file__", folder)),
        found=wanted,
        closest=closest_match(wanted, there),
    )
