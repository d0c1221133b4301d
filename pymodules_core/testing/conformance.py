"""What every plugin has to fulfil, tried with real processes, real files and real training.

The plugin is tried alone, in an experiment of its own with one trained module: ``net``, a linear
layer of 4 inputs and 1 output, trained by SGD.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymodules_core.errors import PluginConformanceError, PymodulesError, list_words
from pymodules_core.testing.checks import CHECKS
from pymodules_core.testing.sandbox import NonconformityError, Sandbox
from pymodules_core.testing.under_test import TEST, PluginUnderTest

if TYPE_CHECKING:
    from typing import Self


def assert_plugin_conforms(plugin: object, *, settings: Mapping[str, Any] | None = None) -> None:
    """Fail unless a plugin fulfils all that ``check_plugin`` looks at.

    Args:
        plugin: The name of an installed distribution, of its entry point, or
            ``<dist>:<entry point>``; or a Python module, a class or an instance with hooks.
        settings: Its table of ``[plugins.settings]``; an empty one by default.

    Raises:
        PluginConformanceError: It does not; an ``AssertionError`` that lists everything.
        PluginError: No installed plugin is called so.
    """
    for _ in check_plugin(plugin, settings=settings):
        pass


def check_plugin(plugin: object, *, settings: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Try a plugin, or all plugins of a distribution.

    Args:
        plugin: As for ``assert_plugin_conforms``.
        settings: As for ``assert_plugin_conforms``.

    Yields:
        What was found to be right, as it is found.

    Raises:
        PluginConformanceError: Something was not; all of it is listed, after the last check.
        PluginError: No installed plugin is called so.
    """
    faults: list[str] = []
    plugins = PluginUnderTest.find(plugin, settings or {})
    for tested in plugins:
        with tempfile.TemporaryDirectory(prefix="pymodules-conformance-") as folder:
            sandbox = Sandbox(tested, Path(folder))
            sandbox.plugins()  # settings that do not fit are not the plugin's fault
            yield from _try_all(sandbox, faults)
    if faults:
        names = list_words(tested.name for tested in plugins)
        raise PluginConformanceError(
            f"plugin {names} does not conform:\n" + "\n".join(f"  - {fault}" for fault in faults),
            found=faults,
            fix="mend what is listed; each check is explained in the docs, on writing a plugin",
        )


def _try_all(sandbox: Sandbox, faults: list[str]) -> Iterator[str]:
    for check in CHECKS:
        found = len(faults)
        with _Warnings(sandbox.tested.name) as warned:
            try:
                line = f"{check.title}: {check.run(sandbox)}"
            except NonconformityError as error:
                faults.append(f"{check.title}: {error}")
            # Whatever it raises while it is built, trained or saved is what is looked for.
            except (Exception, SystemExit) as error:  # noqa: BLE001  reported in the list
                text = str(error) if isinstance(error, PymodulesError) else repr(error)
                faults.append(f"{check.title}: {text}".replace("\n", "\n    "))
            else:
                # A hook that raised is not called again, and a run without it is as it should be.
                faults += [f"{check.title}: {text}" for text in warned.texts]
        if len(faults) == found:
            yield line
        elif check.is_needed:
            return


class _Warnings(logging.Handler):
    """Keeps what the host says of a plugin while it is tried, each text once.

    Args:
        name: ``<dist>:<entry point>``; messages name the distribution.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        distribution, _, entry_point = name.partition(":")
        self._name = f"plugin {entry_point if distribution == TEST else distribution}"

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        text = record.getMessage()
        if self._name in text and text not in self.texts:
            self.texts.append(text)

    def __enter__(self) -> "Self":
        logging.getLogger("pymodules_core").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("pymodules_core").removeHandler(self)
