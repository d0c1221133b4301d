"""The plugins of the authors' page work: each is installed, and takes part in a real run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import TINY_TASK, record_of, write_experiment

from pymodules_core import Trainer
from pymodules_core.discovery import PluginManager, PluginState
from pymodules_core.discovery.plugins.implementations import HOOK_NAMES
from pymodules_core.hookspecs import ModuleHooks, RunHooks
from pymodules_core.testing.checks import CHECKS
from pymodules_core.training.run_output.console import SilentPrinter

PAGE = Path(__file__).parents[2] / "docs" / "writing_plugins.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
PLUGINS = [block for block in BLOCKS if "@hookimpl" in block]
WRITTEN = {
    "run_started": "processes.txt",
    "train_step_finished": "loss.txt",
    "epoch_finished": "epochs/2.json",
    "image_logged": "images/inputs_1.pt",
    "checkpoint_committed": "published/net.pt",
    "run_failed": "how_it_ended.txt",
}


def implemented(source: str) -> list[str]:
    return [name for name in HOOK_NAMES if f"def {name}(" in source]


@pytest.mark.parametrize("source", PLUGINS, ids=lambda source: implemented(source)[0])
def test_each_plugin_of_the_page_works(install_distribution, tmp_path, caplog, source):
    # At the margin: the class of a plugin, and not that of its settings.
    found = re.search(r"^class (?!Settings)(\w+)", source, re.MULTILINE)
    target = f"acme_shown:{found[1]}" if found else "acme_shown"
    install_distribution("acme-broken", "raise ValueError('boom')")
    install_distribution("acme-shown", source, target=target)
    names = implemented(source)

    plugins = PluginManager()
    plugins.provided_specs()

    assert record_of(plugins, "acme-shown").state is PluginState.ACTIVE
    assert record_of(plugins, "acme-shown").hooks == sorted(names)
    if not set(names) <= set(vars(RunHooks)):
        return
    task = TINY_TASK.replace("_step(module_pool, batch)", "_step(module_pool, batch, run)", 1)
    task = task.replace(
        "    inputs, targets", "    run.log_image('inputs', batch[0][None])\n    inputs, targets", 1
    )
    path = write_experiment(tmp_path, task=task)
    Trainer(path, reporter=SilentPrinter()).fit()
    assert not [message for message in caplog.messages if "acme-shown" in message]
    for name in names:
        if name in WRITTEN:
            assert (path / "data" / WRITTEN[name]).stat().st_size > 0


def test_the_page_has_a_plugin_for_each_hook_and_says_when_and_how_often():
    text = PAGE.read_text()
    for name in HOOK_NAMES:
        if name not in vars(RunHooks) and name not in vars(ModuleHooks):
            continue
        assert any(f"def {name}(" in source for source in PLUGINS), name
        section = text.split(f"### `{name}(")[1].split("\n### ")[0]
        assert "- **When:**" in section, name
        assert "- **How often:**" in section, name


def test_the_signatures_of_the_page_are_the_interfaces():
    for name, arguments in re.findall(r"### `(\w+)\((.*?)\)`", PAGE.read_text()):
        family = ModuleHooks if name in vars(ModuleHooks) else RunHooks
        code = vars(family)[name].__code__
        assert arguments == ", ".join(code.co_varnames[1 : code.co_argcount])


def test_the_page_explains_each_check_of_the_kit():
    table = PAGE.read_text().split("### What every plugin has to fulfil")[1]

    explained = re.findall(r"^\| (\w[\w ]*) \|", table, re.MULTILINE)
    assert explained == ["check", *(check.title for check in CHECKS)]


def test_the_pages_own_test_passes(tmp_path):
    source = next(block for block in PLUGINS if "class Average" in block)
    test = next(block for block in BLOCKS if "def test_the_mean" in block)
    (tmp_path / "acme_average.py").write_text(source)
    (tmp_path / "test_shown.py").write_text(test)

    # The fixtures are found by the entry point of the installed package.
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shown.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
