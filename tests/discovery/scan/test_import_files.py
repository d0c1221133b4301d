"""Module files: what goes wrong when one is executed, and how they import each other."""

import errno
import json
import logging
import multiprocessing
import os
import pickle
import sys
from pathlib import Path

import pytest
from support import GOOD_PLUGIN, TINY_MODULE, write_experiment

from pymodules_core import Experiment, ModulePool
from pymodules_core.discovery.scan.import_files import ExperimentFiles
from pymodules_core.discovery.scan.importer import (
    ExperimentFileLoader,
    decode_package,
    encode_package,
)
from pymodules_core.errors import (
    CircularImportError,
    DuplicateModuleError,
    ModuleFileError,
    SettingsError,
)
from pymodules_core.training.run_output.code_snapshot import source_digests

FOLDER = "data/experiments/tiny/pymodules/modules"
ITEM = "settings = {}\n"


def discover(tmp_path, monkeypatch, **modules):
    monkeypatch.chdir(tmp_path)
    return ModulePool.discover(write_experiment(tmp_path / "data", modules=modules))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "from torch import nn\nmodule = nn.Linear(1,\n",
            "net.py:2: is not valid Python: '(' was never closed",
        ),
        (
            "x = 1\nfrom torch import n\n",
            "net.py:2: raises when imported: ImportError: cannot "
            "import name 'n' from 'torch' (TORCH)",
        ),
        (
            "import torch\n\n\ndef f():\n    return 1 / 0\n\n\nf()\n",
            "net.py:5: raises when imported: ZeroDivisionError: division by zero",
        ),
        ("x = 1\nassert x == 2\n", "net.py:2: raises when imported: AssertionError"),
        (
            "x = 1\nexec('y = (')\n",
            "net.py:2: raises when imported: SyntaxError: '(' was never closed (<string>, line 1)",
        ),
        (
            "class Odd(BaseException):\n    pass\n\n\nraise Odd('no')\n",
            "net.py:5: raises when imported: Odd: no",
        ),
        (
            "import sys\n\nsys.exit(3)\n",
            "net.py:3: exits the interpreter when imported: "
            "SystemExit(3)\n  fix: remove the call of sys.exit, or put it under a function",
        ),
        (
            "raise SystemExit\n",
            "net.py:1: exits the interpreter when imported: SystemExit(None)\n"
            "  fix: remove the call of sys.exit, or put it under a function",
        ),
        (
            "x = 1\n",
            "net.py: defines neither module nor build\n"
            "  fix: add module = MyModule() and settings = {}",
        ),
        (
            "from torch import nn\nmodule = nn.Identity()\n",
            "net.py: defines module and no settings\n  fix: add settings = {}",
        ),
        (
            "from torch import nn\nmodule = nn.ReLU\n" + ITEM,
            "net.py: module is not a module: expected an instance of torch.nn.Module, "
            "found class ReLU\n"
            "  fix: write ReLU() instead of ReLU",
        ),
        (
            "def module():\n    return 1\n" + ITEM,
            "net.py: module is not a module: expected an instance of torch.nn.Module, "
            "found function module\n"
            "  fix: call the function and give what it returns",
        ),
        (
            "module = 3\n" + ITEM,
            "net.py: module is not a module: expected an instance of "
            "torch.nn.Module, found int 3\n"
            "  fix: give an instance of a torch.nn.Module subclass",
        ),
        (
            "module = None\n" + ITEM,
            "net.py: module is not a module: expected an instance of "
            "torch.nn.Module, found NoneType None\n"
            "  fix: give an instance of a torch.nn.Module subclass",
        ),
        (
            "def build():\n    pass\n",
            "net.py: build returns no module: expected an instance of "
            "torch.nn.Module, found NoneType None\n"
            "  fix: give an instance of a torch.nn.Module subclass",
        ),
        (
            "def build():\n    return 1 / 0\n",
            "net.py:2: building the module raises ZeroDivisionError: division by zero",
        ),
        (
            "build = 3\n",
            "net.py: build is int 3, expected a function that returns the module\n"
            "  fix: write def build(): return MyModule()",
        ),
        (
            "from torch import nn\nmodule = nn.Identity()\ndef build(): ...\n" + ITEM,
            "net.py: "
            "defines both module and build\n"
            "  fix: keep module, or keep build and create the module inside it",
        ),
    ],
)
def test_a_wrong_module_file_gets_one_message_and_nothing_is_written(
    tmp_path, monkeypatch, source, message
):
    with pytest.raises(ModuleFileError) as caught:
        discover(tmp_path, monkeypatch, net=source)

    import torch

    text = str(caught.value).replace(str(torch.__file__), "TORCH")
    assert text == f"{FOLDER}/{message}"
    assert not (tmp_path / "data/experiments/tiny/data").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"x = 1\ny = 2\0\n",
            "2: is not valid Python: source code string cannot contain null bytes",
        ),
        (
            b"x = 1\ny = '\xff'\n",
            "2: is not valid Python: (unicode error) 'utf-8' codec can't decode byte 0xff in "
            "position 0: invalid start byte",
        ),
        (
            "x = 1\n".encode("utf-16"),
            "1: is not valid Python: source code string cannot contain null bytes",
        ),
        (b"#!/bin/python\n# coding: utf-88\n", "2: is not valid Python: unknown encoding: utf-88"),
    ],
)
@pytest.mark.parametrize("name", ["net", "_helper"])
def test_a_file_that_is_not_text_is_reported(tmp_path, monkeypatch, content, message, name):
    monkeypatch.chdir(tmp_path)
    importer = "from modules._helper import x\n"
    path = write_experiment(tmp_path / "data", modules={"net": importer})
    (path / "pymodules" / "modules" / f"{name}.py").write_bytes(content)

    with pytest.raises(ModuleFileError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == f"{FOLDER}/{name}.py:{message}\n  fix: save it as UTF-8 text"


def test_a_ctrl_c_during_an_import_passes_through(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        discover(tmp_path, monkeypatch, net="raise KeyboardInterrupt\n")


def test_a_slow_import_is_named_with_the_stacks(tmp_path, caplog, capfd):
    path = write_experiment(tmp_path, modules={"net": "import time\ntime.sleep(0.5)\n"})
    files = ExperimentFiles(path / "pymodules", slow_import_s=0.1)

    files.load("modules.net")

    assert "net.py takes more than 0.1 s; this is where it is:" in caplog.text
    assert 'net.py", line 2 in <module>' in capfd.readouterr().err


def test_every_import_can_be_logged(tmp_path, caplog):
    path = write_experiment(tmp_path)
    caplog.set_level(logging.DEBUG, logger="pymodules_core")

    ModulePool.discover(path)

    assert any(m.startswith("importing ") and m.endswith("net.py") for m in caplog.messages)


@pytest.mark.parametrize(
    "statement",
    [
        "from modules.{} import y",
        "import modules.{}",
        "from .{} import y",
        "from modules import {}",
        "from . import {}",
    ],
)
def test_a_circle_of_imports_is_printed(tmp_path, monkeypatch, statement):
    with pytest.raises(CircularImportError) as caught:
        discover(
            tmp_path,
            monkeypatch,
            a=statement.format("b") + "\nx = 1\n",
            b=statement.format("a") + "\ny = 1\n",
        )

    assert str(caught.value) == (
        f"{FOLDER}/b.py:1: module files import each other in a circle: a -> b -> a\n"
        "  fix: move what both need into a helper file, pymodules/modules/_<name>.py"
    )


def test_an_import_of_a_file_that_is_not_there_names_the_closest(tmp_path, monkeypatch):
    with pytest.raises(ModuleFileError) as caught:
        discover(
            tmp_path,
            monkeypatch,
            encoder=TINY_MODULE,
            head="from modules.encodr import module\n" + ITEM,
        )

    assert str(caught.value) == (
        f"{FOLDER}/head.py:1: imports 'encodr', and there is no such file in modules/; "
        "there are: encoder, head\n"
        "  closest match: encoder\n"
        "  fix: write 'encoder'"
    )


def test_a_file_that_may_not_be_read_is_reported(tmp_path, monkeypatch):
    def refuse(*_):  # whoever is root may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path = write_experiment(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ExperimentFileLoader, "get_data", refuse)

    with pytest.raises(ModuleFileError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        f"{FOLDER}/net.py: net.py cannot be read: Permission denied\n  fix: make it readable"
    )


def test_a_link_to_nothing_is_not_a_file_to_import(tmp_path, monkeypatch):
    source = "from modules._blocks import Block\n" + ITEM
    path = write_experiment(tmp_path / "data", modules={"head": source})
    (path / "pymodules" / "modules" / "_blocks.py").symlink_to("nowhere.py")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModuleFileError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        f"{FOLDER}/head.py:1: imports '_blocks', and there is no such file in modules/; "
        "there are: head"
    )


def test_what_an_editor_or_the_system_keeps_beside_files_is_left_alone(tmp_path, monkeypatch):
    path = write_experiment(tmp_path)
    folder = path / "pymodules" / "modules"
    (folder / ".#net.py").symlink_to("someone@host.4711:1")  # Emacs, while net.py is edited
    (folder / "._net.py").write_bytes(b"\x00\x05\x16\x07")  # macOS, in a copy
    (folder / "_old.py").mkdir()
    os.mkfifo(folder / "_pipe.py")
    monkeypatch.chdir(tmp_path)

    assert list(ModulePool.discover(path)) == ["net"]
    assert list(source_digests(Experiment.open(path))) == [
        "pymodules/modules/net.py",
        "pymodules/task.py",
    ]


def test_a_library_that_is_not_installed_is_reported_as_such(tmp_path, monkeypatch):
    with pytest.raises(ModuleFileError, match="No module named 'no_such_library'") as caught:
        discover(tmp_path, monkeypatch, net="import no_such_library.nets\n" + TINY_MODULE)

    assert caught.value.fix == "pip install no_such_library"


@pytest.mark.parametrize(
    "source", ["from _blocks import Block\n", "def build():\n    import _blocks.more\n"]
)
def test_a_file_beside_it_is_not_a_package_to_install(tmp_path, monkeypatch, source):
    with pytest.raises(ModuleFileError, match="No module named '_blocks'") as caught:
        discover(tmp_path, monkeypatch, net=source, _blocks="Block = 1\n")

    assert caught.value.fix == "write modules._blocks instead of _blocks"


def test_files_named_like_libraries_shadow_nothing(tmp_path, monkeypatch):
    pool = discover(
        tmp_path,
        monkeypatch,
        json=TINY_MODULE,
        torch="import json\nassert json.dumps([1]) == '[1]'\n" + TINY_MODULE,
    )

    assert list(pool) == ["json", "torch"]
    assert sys.modules["json"] is json
    assert "modules" not in sys.modules


def test_a_file_and_a_plugin_of_one_name_are_refused_until_one_is_picked(
    install_distribution, home
):
    install_distribution("acme-good", GOOD_PLUGIN)
    path = write_experiment(home, modules={"good": TINY_MODULE})

    with pytest.raises(DuplicateModuleError) as caught:
        ModulePool.discover("tiny")
    (path / "experiment.toml").write_text('[modules.override]\ngood = "files"\n')
    origin = ModulePool.discover("tiny").origins["good"]

    assert str(caught.value) == (
        "module 'good' is provided twice:\n"
        "  - acme-good 1.0 (plugin)\n"
        f"  - {FOLDER}/good.py\n"
        '  fix: pick one in experiment.toml:  [modules.override]  good = "files"'
    )
    assert str(origin) == f"{FOLDER}/good.py"


def test_every_way_of_importing_gives_the_same_object(tmp_path, monkeypatch):
    pool = discover(
        tmp_path,
        monkeypatch,
        _shared="x = object()\n",
        encoder=TINY_MODULE,
        user=(
            "import modules.encoder\n"
            "import modules.encoder as aliased\n"
            "from modules import encoder as from_package\n"
            "from modules.encoder import module as direct\n"
            "from .encoder import module as relative\n"
            "from . import encoder as from_here\n"
            "from modules._shared import x\n"
            "from ._shared import x as again\n"
            "assert x is again\n"
            "assert modules.encoder is aliased is from_package is from_here\n"
            "assert aliased.module is direct is relative\n"
            "def later():\n"
            "    from modules.encoder import module\n"
            "    return module\n"
            "module, settings = direct, {}\n"
        ),
    )

    assert pool.user is pool.encoder


def test_a_file_is_executed_once_however_often_it_is_imported(tmp_path, monkeypatch):
    count = "import pathlib\nwith pathlib.Path('count').open('a') as f:\n    f.write('x')\n"
    discover(
        tmp_path,
        monkeypatch,
        net=count + TINY_MODULE,
        a="from modules.net import module\nsettings = {}\n",
        b="from .net import module\nsettings = {}\n",
    )

    assert Path("count").read_text() == "x"


def test_dataclasses_and_pickling_work_in_module_files(tmp_path, monkeypatch):
    pool = discover(
        tmp_path,
        monkeypatch,
        net=(
            "from __future__ import annotations\n"
            "from dataclasses import dataclass\n"
            "from torch import nn\n"
            "@dataclass\n"
            "class Config:\n"
            "    width: int = 3\n"
            "class Net(nn.Linear):\n"
            "    def __init__(self):\n"
            "        super().__init__(Config().width, 1)\n"
            "module, settings = Net(), {}\n"
        ),
    )

    again = pickle.loads(pickle.dumps(pool.net))  # noqa: S301  our own bytes

    assert type(again) is type(pool.net)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_worker_process_finds_the_classes_of_module_files(tmp_path, monkeypatch, method):
    pool = discover(
        tmp_path,
        monkeypatch,
        _blocks="from torch import nn\nclass Block(nn.Linear): pass\n",
        net="from modules._blocks import Block\nmodule, settings = Block(2, 1), {}\n",
    )

    with multiprocessing.get_context(method).Pool(1) as workers:
        text = workers.apply(repr, (pool.net,))

    assert text == "Block(in_features=2, out_features=1, bias=True)"


def test_private_names_hold_the_folder():
    folder = Path("/a folder/with ünicode/pymodules")

    name = encode_package(folder, 12)

    assert all(part.isidentifier() for part in name.split("."))
    assert decode_package(name.rpartition(".")[2]) == folder


def test_no_bytecode_is_left_beside_what_a_person_writes(tmp_path, monkeypatch):
    discover(tmp_path, monkeypatch, net=TINY_MODULE)

    assert not list(tmp_path.rglob("__pycache__"))


def test_an_edit_within_the_same_second_is_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path / "data", modules={"net": TINY_MODULE})
    file = path / "pymodules" / "modules" / "net.py"
    assert ModulePool.discover(path).net.in_features == 4
    stamp = file.stat()

    file.write_text(TINY_MODULE.replace("4", "5"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    assert ModulePool.discover(path).net.in_features == 5


def test_arguments_for_a_file_without_build_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path / "data", toml="[modules.args.net]\nwidth = 3\n")

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        "data/experiments/tiny/experiment.toml:1: modules.args.net: net.py defines module, which "
        "takes no arguments\n"
        "  fix: define def build(...) in the file instead of module"
    )
