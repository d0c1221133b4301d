"""The built-in plugin that provides the module files of an experiment.

It implements the same hook as any package and can be disabled like one, by the name
``directory_scanner``. Scanning lists files; a file is executed when the pool is built.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from pymodules_core.discovery.scan.import_files import ExperimentFiles
from pymodules_core.errors import ModuleFileError, closest_match
from pymodules_core.hookspecs import hookimpl
from pymodules_core.names import check_module_name
from pymodules_core.settings.structure import format_value
from pymodules_core.specs import DiscoveryContext, FileOrigin, ModuleSpec

if TYPE_CHECKING:
    from torch import nn

SCANNER_NAME = "directory_scanner"


class DirectoryScanner:
    """Provides one spec for each ``pymodules/modules/<module_name>.py``.

    Args:
        files: Imports the files of the experiment when a module is built.
    """

    def __init__(self, files: ExperimentFiles) -> None:
        self._files = files

    @hookimpl
    def provide_module(self, context: DiscoveryContext) -> Iterator[ModuleSpec]:
        """Return a spec for each module file, sorted by name.

        Files that start with ``_`` are helpers, those that start with ``.`` an editor's or the
        system's: ``.#net.py`` is a lock that Emacs holds, ``._net.py`` what macOS adds to a copy.
        """
        if context.experiment_dir is None:
            return
        folder = context.experiment_dir / "pymodules" / "modules"
        if not folder.is_dir():
            return
        for file in sorted(folder.iterdir(), key=attrgetter("name")):
            if file.name.startswith(("_", ".")) or not file.name.endswith(".py"):
                continue
            name = check_module_name(file.name.removesuffix(".py"), file=file)
            module_file = ModuleFile(name, file, self._files)
            yield ModuleSpec(
                name=name,
                factory=module_file,
                settings=module_file.settings,
                origin=FileOrigin(file),
            )


@attrs.frozen(eq=False)
class ModuleFile:
    """One module file as a factory: executes the file when called.

    Attributes:
        name: Name of the module.
        file: The file.
        files: Imports it.
    """

    name: str
    file: Path
    files: ExperimentFiles

    @property
    def build(self) -> "Callable[..., nn.Module] | None":
        """The file's ``build`` function, or None where it defines ``module``.

        Raises:
            ModuleFileError: If the file fails, or defines neither or both.
        """
        namespace, refusal = self._namespace, partial(ModuleFileError, file=self.file)
        has_module, build = "module" in namespace, namespace.get("build")
        if build is not None and not callable(build):
            raise refusal(
                f"build is {format_value(build)}, expected a function that returns the module",
                found=build,
                fix="write def build(): return MyModule()",
            )
        if has_module and build is not None:
            fix = "keep module, or keep build and create the module inside it"
            raise refusal("defines both module and build", fix=fix)
        if not has_module and build is None:
            names = set(namespace) - {"build", "modules"}
            raise refusal(
                "defines neither module nor build",
                closest=closest_match("module", names) or closest_match("build", names),
                fix="add module = MyModule() and settings = {}",
            )
        return build

    def settings(self) -> Mapping[str, Any]:
        """Execute the file and return its ``settings``.

        Raises:
            ModuleFileError: If the file fails or has ``module`` and no ``settings``.
        """
        if "settings" not in self._namespace and self.build is None:
            raise ModuleFileError(
                "defines module and no settings", file=self.file, fix="add settings = {}"
            )
        # Not checked here: the structuring of settings says what is wrong with any type.
        value: Mapping[str, Any] = self._namespace.get("settings", {})
        return value

    def __call__(self, **kwargs: Any) -> "nn.Module":
        """Execute the file and return its module.

        Raises:
            ModuleFileError: If the file fails.
        """
        build = self.build
        if build is not None:
            return build(**kwargs)
        module: nn.Module = self._namespace["module"]
        return module

    @property
    def _namespace(self) -> dict[str, Any]:
        return vars(self.files.load(f"modules.{self.name}"))
