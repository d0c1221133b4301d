"""What the page on security says of every command, with files and a plugin that leave a trace."""

import re
import shutil
from pathlib import Path

import pytest
from plugin_cases import Site
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core.cli.main import run

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
FILES, PLUGIN = "files.executed", "plugin.executed"
TRACE = "import pathlib; pathlib.Path({name!r}).touch()\n"
TRACED_PLUGIN = f"""
{TRACE.format(name=PLUGIN)}
from pymodules_core import hookimpl

@hookimpl
def run_started(run):
    pass
"""


def rows() -> list[tuple[str, bool, bool]]:
    """Return command, whether it executes the experiment's files, and whether plugins."""
    found = re.findall(r"^\| `pymodules ([^`]+)` \| (\S+) \| (\S+) \|", PAGE.read_text(), re.M)
    return [(command, "yes" in files, "yes" in plugins) for command, files, plugins in found]


@pytest.fixture
def stranger(home, monkeypatch, tmp_path):
    """A trained experiment and an installed plugin, all of whose files leave a trace when run."""
    site = Site(tmp_path / "site", monkeypatch)
    path = write_experiment(home, toml="[train]\nepochs = 1\nbatch_size = 16\n")
    site.install("traced", TRACED_PLUGIN)
    assert run(["train", "tiny"]) == 0
    shutil.copytree(path, path.with_name("other"))
    site.install("traced", TRACED_PLUGIN)  # again: what was imported stays so in this process
    trace = TRACE.format(name=FILES)
    (path / "pymodules" / "task.py").write_text(trace + TINY_TASK)
    (path / "pymodules" / "modules" / "net.py").write_text(trace + TINY_MODULE)
    (path / "pymodules" / "modules" / "_helper.py").write_text(trace)
    for name in (FILES, PLUGIN):
        Path(name).unlink(missing_ok=True)
    yield
    site.close()


@pytest.mark.parametrize(("command", "files", "plugins"), rows())
def test_a_command_executes_what_the_page_says(stranger, capsys, command, files, plugins):
    code = run([{"EXP": "tiny", "OTHER": "other"}.get(word, word) for word in command.split()])

    assert (Path(FILES).exists(), Path(PLUGIN).exists()) == (files, plugins)
    printed = capsys.readouterr()
    # The files have changed since the run began.
    assert code == (2 if "--resume" in command else 0), printed.err
    assert ("executing " in printed.out + printed.err) == files


def test_the_page_names_every_command():
    from pymodules_core.cli.ckpt import command as ckpt
    from pymodules_core.cli.main import _COMMANDS

    # These know no experiment.
    expected = set(_COMMANDS) - {"new", "new-plugin"}
    named = {command.split()[0] for command, *_ in rows()}
    pools = {command.split()[1] for command, *_ in rows() if command.startswith("ckpt ")}

    assert named == expected
    assert pools == set(ckpt.list_commands(None))
