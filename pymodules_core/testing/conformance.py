"""What every plugin has to fulfil, tried with real processes, real files and real training.

The plugin is tried alone, in an experiment of its own with one trained module: ``net``, a linear
layer of 4 inputs and 1 output, trained by SGD.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pymodules_core.errors import PluginConformanceError, PymodulesError, list_words
from pymodules_core.testing.bench import Bench, NonconformityError
from pymodules_core.testing.checks import CHECKS
from pymodules_core.testing.subject import Subject


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
    subjects = Subject.find(plugin, settings or {})
    for subject in subjects:
        with tempfile.TemporaryDirectory(prefix="pymodules-conformance-") as folder:
            yield from _try_all(Bench(subject, Path(folder)), faults)
    if faults:
        names = list_words(subject.name for subject in subjects)
        raise PluginConformanceError(
            f"plugin {names} does not conform:\n" + "\n".join(f"  - {fault}" for fault in faults),
            found=faults,
            fix="mend what is listed; each check is explained in the docs, on writing a plugin",
        )


def _try_all(bench: Bench, faults: list[str]) -> Iterator[str]:
    for check in CHECKS:
        try:
            yield f"{check.title}: {check.run(bench)}"
        except NonconformityError as error:
            faults.append(f"{check.title}: {error}")
        # Whatever it raises while it is built, trained or saved is what is looked for.
        except (Exception, SystemExit) as error:  # noqa: BLE001  told in the list
            told = str(error) if isinstance(error, PymodulesError) else repr(error)
            faults.append(f"{check.title}: {told}".replace("\n", "\n    "))
        if check.is_needed and faults:
            return
