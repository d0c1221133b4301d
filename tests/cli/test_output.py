"""Text of strangers leaves the program in one place, with nothing that a terminal acts on."""

import logging
import re
from pathlib import Path

import pytest
from support import write_experiment

from pymodules_core.cli import output
from pymodules_core.cli.main import run
from pymodules_core.cli.messages import WarningHandler

CLEAR = "\x1b[2J"
CORE = Path(output.__file__).parents[1]


def test_a_line_is_spelt_out_line_breaks_included(capsys):
    output.echo(f"net{CLEAR}\nerror: forged")

    assert capsys.readouterr().out == "net\\x1b[2J\\nerror: forged\n"


def test_lines_of_any_length_are_cut_and_spelt_out(capsys):
    output.say(f"first{CLEAR}\n{'x' * 5000}")

    assert capsys.readouterr().err == f"first\\x1b[2J\n{'x' * 1000}…\n"


def test_a_warning_is_spelt_out(capsys):
    logger = logging.getLogger("pymodules_core.test_output")
    handler = WarningHandler()
    logger.addHandler(handler)
    logger.warning("plugin %s failed", CLEAR)
    logger.removeHandler(handler)

    assert "warning: plugin \\x1b[2J failed\n" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "train"])
def test_an_exception_of_a_module_file_is_spelt_out(home, capsys, command):
    source = f"raise ValueError({CLEAR + ' bad'!r})\n"
    write_experiment(home, modules={"net": source})

    assert run([command, "tiny"]) == 2
    captured = capsys.readouterr()
    assert "\\x1b[2J bad" in captured.err
    assert "\x1b" not in captured.err + captured.out


def test_commands_print_through_one_module():
    direct = re.compile(r"click\.echo\(|(?<![\w.])print\(|traceback\.print_")
    allowed = {"output.py": 4, "main.py": 1, "eval.py": 1}
    found = {
        file.name: count
        for file in (CORE / "cli").rglob("*.py")
        if (count := len(direct.findall(file.read_text())))
    }

    assert found == allowed
