"""Imports the files of an experiment under private names, with errors that name file and line.

Each file is imported once per ``ExperimentFiles``, as
``pymodules_core.discovery.scan.<key>.modules.<name>``. The key holds the folder's path, so
a worker process that unpickles a class of such a file finds it by name alone, under fork, spawn and
forkserver; and no file shadows anything, be it called ``json.py``. A counter in the key gives every
pool its own copies: two runs in one process never train the same object.

``from modules.encoder import module`` inside these files is answered by an ``__import__`` that only
they see, through their own ``__builtins__``. So nothing is put into ``sys.modules`` under the name
``modules``, experiments do not see each other, and imports inside functions work later, too.
"""

import faulthandler
import importlib
import itertools
import logging
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from pymodules_core.discovery.scan.importer import (
    MODULES,
    ExperimentFileLoader,
    Isolation,
    current_isolation,
    encode_package,
)
from pymodules_core.errors import ModuleFileError, PymodulesError, display_path
from pymodules_core.missing_packages import missing_package_fix

logger = logging.getLogger("pymodules_core")

SLOW_IMPORT_S = 60.0

# The extra `examples`, by import name: what an experiment of `pymodules new` may miss.
EXAMPLE_LIBRARIES = frozenset({"PIL", "sklearn"})

_copies = itertools.count(1)
# Private packages whose pools are gone.
_abandoned: list[str] = []


class ExperimentFiles:
    """Imports the files below one ``pymodules`` folder under private names.

    The names leave ``sys.modules`` once this object, which the pool holds, is gone and the next one
    is made: a sweep of many runs in one process does not keep all of their modules.

    Args:
        folder: The experiment's ``pymodules`` folder.
        slow_import_s: Seconds after which an import that still runs prints every thread's stack.
    """

    def __init__(self, folder: Path, *, slow_import_s: float = SLOW_IMPORT_S) -> None:
        self.folder = folder.absolute()
        self._package = encode_package(self.folder, next(_copies))
        self._slow_import_s = slow_import_s
        _forget_abandoned()
        # Only noted: a finalizer may run while somebody walks through sys.modules.
        weakref.finalize(self, _abandoned.append, self._package).atexit = False

    def load(self, relative_name: str) -> ModuleType:
        """Import ``modules.encoder`` or ``task``, or give what was imported before.

        Raises:
            ModuleFileError: The file cannot be read or compiled, raises, or exits the interpreter.
        """
        file = self.folder.joinpath(*relative_name.split(".")).with_suffix(".py")
        private_name = f"{self._package}.{relative_name}"
        if private_name in sys.modules:
            return sys.modules[private_name]
        if not file.is_file():
            raise ModuleFileError(
                "is a folder, expected a file" if file.is_dir() else "is not a file",
                file=file,
                fix="remove it, or let its name start with '_'",
            )
        logger.debug("importing %s", display_path(file))
        try:
            with _dump_stacks_if_slow(file, self._slow_import_s):
                return importlib.import_module(private_name)
        except PymodulesError as error:
            if isinstance(error, ModuleFileError) and error.line is None:
                file = error.file or file
                error.file, error.line = place_in_folder(error, self.folder, otherwise=file)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._fault_of_import(error, file) from error

    def executed(self) -> dict[str, str]:
        """Return each file executed so far, helpers included, with the SHA-256 of what ran.

        Returns:
            Paths below the folder to hex digests, sorted.
        """
        loaders = [
            module.__loader__
            for name, module in list(sys.modules.items())
            if name.startswith(f"{self._package}.")
        ]
        digests = {
            Path(loader.path).relative_to(self.folder).as_posix(): loader.sha256
            for loader in loaders
            if isinstance(loader, ExperimentFileLoader)
        }
        return dict(sorted(digests.items()))

    def _fault_of_import(self, error: BaseException, file: Path) -> ModuleFileError:
        # One of a text that the file itself executes is an error like any other.
        if isinstance(error, SyntaxError) and Path(error.filename or "").is_file():
            return ModuleFileError(
                f"is not valid Python: {error.msg}",
                file=error.filename,
                line=error.lineno,
                fix="save it as UTF-8 text" if _is_about_encoding(error) else None,
            )
        if isinstance(error, SystemExit):
            what = f"exits the interpreter when imported: SystemExit({error.code!r})"
            fix: str | None = "remove the call of sys.exit, or put it under a function"
        else:
            # A user knows `modules.encoder`, not the private name in front of it.
            reason = str(error).replace(f"{self._package}.", "")
            what = (
                f"raises when imported: {': '.join(filter(None, (type(error).__name__, reason)))}"
            )
            fix = fix_of_import(error, self.folder)
        file, line = place_in_folder(error, self.folder, otherwise=file)
        return ModuleFileError(what, file=file, line=line, fix=fix)


@contextmanager
def isolated_imports(isolation: Isolation) -> Iterator[None]:
    """Surround the execution of each experiment file in this context.

    Args:
        isolation: Given a file's dotted name below ``pymodules`` and its path, makes a context.
    """
    token = current_isolation.set(isolation)
    try:
        yield
    finally:
        current_isolation.reset(token)


def place_in_folder(
    error: BaseException, folder: Path, *, otherwise: Path
) -> tuple[Path, int | None]:
    """Return file and line of the innermost frame of an error that runs a file of a folder.

    Args:
        error: The error.
        folder: The folder.
        otherwise: The file, without a line, where no frame does.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if (file := Path(frame.filename)).is_relative_to(folder):
            return file, frame.lineno
    return otherwise, None


def fix_of_import(error: BaseException, folder: Path) -> str | None:
    """Return what makes a failed import work; None for any other error.

    Args:
        error: What the import raised.
        folder: The experiment's ``pymodules`` folder: of its files none is a package to install.
    """
    name = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    stem = (name or "").partition(".")[0]
    if stem and folder.joinpath(MODULES, f"{stem}.py").is_file():
        return f"write {MODULES}.{stem} instead of {stem}"
    fix = missing_package_fix(error)
    if fix and stem in EXAMPLE_LIBRARIES:
        fix += ', or pip install "pymodules-core[examples]" for all that the examples import'
    return fix


def _forget_abandoned() -> None:
    while _abandoned:
        package = _abandoned.pop()
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
            del sys.modules[name]
        # An import also makes a package an attribute of its parent.
        parent, _, key = package.rpartition(".")
        vars(sys.modules[parent]).pop(key, None)


def _is_about_encoding(error: SyntaxError) -> bool:
    return any(word in error.msg for word in ("null bytes", "(unicode error)", "encoding"))


@contextmanager
def _dump_stacks_if_slow(file: Path, after_s: float) -> Iterator[None]:
    def dump() -> None:
        logger.warning(
            "importing %s takes more than %g s; this is where it is:", display_path(file), after_s
        )
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)

    timer = threading.Timer(after_s, dump)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
