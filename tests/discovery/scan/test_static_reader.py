"""Reading a module file without executing it: the quick way says what the whole way says."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymodules_core.discovery.scan.static_reader import (
    StaticModuleFile,
    find_settings_line,
    read_module_file,
)

DOCSTRINGS = [
    "",
    '"""A net.\n\nsettings = {"frozen": True}\n"""\n',
    "'''A net.'''\n",
    '"A net."\n',
    'r"""A \\net."""\n',
    '#!/usr/bin/env python\n# A licence.\n\nu"A net."  # it is\n',
    '"A " "net."\n',
    '"A net.".strip()\n',
    '# settings = {"frozen": 1}\n"""A net."""\n',
]
STATEMENTS = [
    "x = 1\n",
    'x = \'"""\'\n',
    "y = \"'''\"  # settings\n",
    "text = '''\nsettings = {'frozen': True}\n'''\n",
    'text = """\nsettings = {"frozen": True}\n"""\n',
    "class Net:\n    settings = {'frozen': True}\n",
    "it's = 1\n",
    "x = call(\nsettings={'frozen': True})\n",
    "settings_of_net = {'frozen': True}\n",
    "x = 'a\\\nsettings = 3'\n",
    "from sizes import *\n",
    "settings['frozen'] = True\n",
    "def change():\n    settings.update(frozen=True)\n",
    "module = 3\n",
]
SETTINGS = [
    "",
    "settings = {}\n",
    "settings: dict = {'frozen': True}\n",
    "settings = {\n    'frozen': True,  # yes\n}\n",
    "settings = {\n'mode': 'eval',\n}\n",
    "settings = dict(frozen=True)\n",
    "settings = [1]\n",
    "settings = {}; settings['frozen'] = True\n",
    "settings = {'rename': {'''a\nb''': 'c'}}\n",
    "settings = {'a': 1} | \\\n{'b': 2}\n",
    "settings = {}\nsettings = {'frozen': True}\n",
    "if x:\n    settings = {'frozen': True}\n",
    "other = settings = {'frozen': True}\n",
]


@given(
    st.sampled_from(DOCSTRINGS),
    st.lists(st.sampled_from(STATEMENTS), max_size=3),
    st.sampled_from(SETTINGS),
    st.lists(st.sampled_from(STATEMENTS), max_size=2),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_the_quick_way_finds_what_the_whole_way_finds(
    tmp_path_factory, docstring, before, settings, after, newline, has_mark
):
    file = tmp_path_factory.getbasetemp() / "net.py"
    source = docstring + "".join([*before, settings, *after])
    encoding = "utf-8-sig" if has_mark else "utf-8"
    file.write_bytes(source.replace("\n", newline).encode(encoding))

    whole = read_module_file(file)

    if whole.fault is None or "settings" in whole.fault:
        assert read_module_file(file, whole=False) == whole


def test_settings_and_description_are_read(tmp_path):
    file = tmp_path / "net.py"
    file.write_text('"""A net.\n\nMore."""\nimport no_such\nsettings = {"frozen": True}\n')

    assert read_module_file(file, whole=False) == StaticModuleFile(
        settings={"frozen": True}, description="A net."
    )


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (b"x = (\n", "line 1: '(' was never closed"),
        (b"x = 1\ny = 1\0\n", "line 2: source code string cannot contain null bytes"),
        (b"# coding: utf-88\n", "line 1: unknown encoding: utf-88"),
        (b"x = " + b"-" * 100_000 + b"1\n", "nests too deeply to be parsed"),
        (b"settings = 3\n", "settings is int, not dict"),
    ],
)
def test_a_file_that_cannot_be_read_is_described(tmp_path, source, fault):
    file = tmp_path / "net.py"
    file.write_bytes(source)

    assert read_module_file(file).fault == fault


def test_an_expression_deeper_than_python_recurses_is_not_a_fault(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(f"settings = {{}}\nx = {'+'.join(['1'] * 600)}\n")

    assert read_module_file(file) == StaticModuleFile(settings={})


def test_a_pipe_does_not_keep_a_listing_waiting(tmp_path):
    os.mkfifo(tmp_path / "net.py")

    assert read_module_file(tmp_path / "net.py").fault == "is not a file"


def test_a_file_that_is_gone_is_described():
    fault = read_module_file(Path("nowhere.py")).fault

    assert fault == "cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "source",
    [
        "settings = make()",
        "settings = {}\nsettings['frozen'] = True",
        "settings = {'rename': {}}\nsettings['rename']['a'] = 'b'",
        "settings = {'frozen': True}\ndel settings['frozen']",
        "settings = {}\nsettings.update(frozen=True)",
        "settings = {}\nsettings |= {'frozen': True}",
        "settings = {}\nif x:\n    settings = {'frozen': True}",
        "for settings in ({}, {'frozen': True}):\n    pass",
        "with x as settings:\n    pass",
        "try:\n    settings = {}\nexcept KeyError:\n    pass",
        "if (settings := {}):\n    pass",
        "settings = {}\ndef change():\n    global settings\n    settings = {'frozen': True}",
        "settings = {}\ndef change():\n    settings['frozen'] = True",
        "settings = {}\nfrom modules._common import settings",
        "from modules._common import base as settings",
        "import settings",
        "settings = {}\nfrom modules._common import *",
        "module = 1\nfrom modules._common import *",
        "settings = {}\ndel settings",
        "def settings():\n    pass",
        "settings: dict",
        "(settings, x) = {}, 1",
    ],
)
def test_settings_that_are_no_literal_or_may_change_are_dynamic(tmp_path, source):
    file = tmp_path / "net.py"
    file.write_text(f"{source}\n")

    for whole in (True, False):
        assert read_module_file(file, whole=whole) == StaticModuleFile(is_dynamic=True)


@pytest.mark.parametrize(
    "after",
    [
        "module = build(settings)",
        "module = Net(settings.get('frozen'), settings['frozen'])",
        "def build(settings):\n    settings['x'] = 1",
        "class Net:\n    settings = {}",
        "def build():\n    settings = {}\n    settings.update(a=1)",
        "import torch.settings",
        "x.settings = 3",
        "settings = {'frozen': True}",
    ],
)
def test_settings_that_are_only_read_are_known(tmp_path, after):
    file = tmp_path / "net.py"
    file.write_text(f"settings = {{'frozen': True}}\n{after}\n")

    for whole in (True, False):
        assert read_module_file(file, whole=whole) == StaticModuleFile(settings={"frozen": True})


def test_a_module_without_settings_is_a_fault(tmp_path):
    file = tmp_path / "net.py"
    file.write_text('"""A net."""\nmodule = make()\n')

    assert read_module_file(file) == StaticModuleFile(
        fault="defines module and no settings\n  fix: add settings = {}", description="A net."
    )


@pytest.mark.parametrize(
    ("path", "line"),
    [((), 2), (("frozen",), 3), (("rename",), 4), (("rename", "a"), 5), (("rename", "b"), 4)],
)
def test_the_line_of_a_key_is_found(tmp_path, path, line):
    file = tmp_path / "net.py"
    file.write_text("x = 1\nsettings = {\n'frozen': True,\n'rename': {\n'a': 'b'},\n}\n")

    assert find_settings_line(file, path) == line
