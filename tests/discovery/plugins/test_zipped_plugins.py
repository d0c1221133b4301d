"""Plugins in zips on ``sys.path``: they work, or each is one named fault that stops no other."""

import errno
import gc
import importlib
import os
import sys
import warnings
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from support import GOOD_PLUGIN, TINY_TASK, record_of, start_command, write_experiment

from pymodules_core import ModulePool
from pymodules_core.discovery import PluginManager
from pymodules_core.discovery.plugins.distribution_files import lock_distributions
from pymodules_core.discovery.plugins.packaged_task import find_tasks
from pymodules_core.specs import DistributionOrigin

PLUGIN = """
from pymodules_core import ModuleSpec, hookimpl

@hookimpl
def provide_module(context):
    return ModuleSpec(name="zipped", factory="{package}.nets:build")
"""
NETS = "def build():\n    from torch import nn\n\n    return nn.Linear(4, 4)\n"
METADATA = "Metadata-Version: 2.1\nName: acme-zip\nVersion: 1.0\n"
POINTS = "[pymodules]\nplugin = {package}\n"
INFO = "acme_zip-1.0.dist-info"
ERROR_OF_ZIP = "BadZipFile: File is not a zip file"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The name of a package of this test; it leaves memory with the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"acme_zip_{sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    yield name
    for found in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[found]
    with warnings.catch_warnings():
        # importlib_metadata leaves zips open in cycles, which end in whatever test comes next.
        warnings.simplefilter("ignore", ResourceWarning)
        importlib.invalidate_caches()
        gc.collect()


def write_zip(file: Path, package: str, *, info: str = INFO, **files: str | bytes | None) -> Path:
    """Write a distribution into a zip; a file of ``info`` is replaced, or left out by None."""
    contents = {
        f"{package}/__init__.py": PLUGIN.format(package=package),
        f"{package}/nets.py": NETS,
        f"{info}/entry_points.txt": POINTS.format(package=package),
        f"{info}/METADATA": METADATA,
        **{f"{info}/{name.replace('__', '.')}": text for name, text in files.items()},
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in contents.items():
            if text is not None:
                archive.writestr(name, text)
    return file


def lock():
    (locked,) = lock_distributions([DistributionOrigin("acme-zip", "1.0", "plugin")])
    return locked


@pytest.mark.parametrize(
    ("name", "info", "files"),
    [
        ("acme.zip", INFO, {}),
        ("acme_zip-1.0-py3-none-any.whl", INFO, {"RECORD": "{package}/__init__.py,,\n"}),
        ("acme.zip", "acme_zip.egg-info", {"PKG-INFO": METADATA, "METADATA": None}),
        ("acme_zip-1.0-py3.egg", "EGG-INFO", {"PKG-INFO": METADATA, "METADATA": None}),
    ],
    ids=["zip", "wheel", "egg-info", "egg"],
)
def test_a_plugin_in_a_zip_is_listed_and_its_module_is_built(
    package, tmp_path, caplog, name, info, files
):
    sys.path.append(str(write_zip(tmp_path / name, package, info=info, **files)))

    plugins = PluginManager()

    record = record_of(plugins, "acme-zip")
    assert (record.failure, record.location) == (None, str(tmp_path / name))
    assert [spec.name for spec in plugins.provided_specs()] == ["zipped"]
    pool = ModulePool.discover(write_experiment(tmp_path / "data"))
    assert pool.zipped.weight.shape == (4, 4)
    assert caplog.messages == []


@pytest.mark.parametrize("has_record", [True, False])
def test_the_files_of_a_zip_are_locked_one_by_one(package, tmp_path, has_record):
    listed = f"{package}/__init__.py,,\n{package}/nets.py,,\n{INFO}/METADATA,,\n"
    file = tmp_path / "acme.zip"
    write_zip(file, package, RECORD=listed if has_record else None)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("of_another.py", "")
        archive.writestr(f"{package}/__pycache__/nets.cpython-311.pyc", "")
    sys.path.append(str(file))
    PluginManager()

    assert lock().files == {
        f"{package}/__init__.py": sha256(PLUGIN.format(package=package).encode()).hexdigest(),
        f"{package}/nets.py": sha256(NETS.encode()).hexdigest(),
    }


def test_a_package_of_one_file_in_a_zip_is_locked(package, tmp_path):
    file = tmp_path / "acme.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{package}.py", GOOD_PLUGIN)
        archive.writestr(f"{INFO}/METADATA", METADATA)
        archive.writestr(f"{INFO}/entry_points.txt", POINTS.format(package=package))
    sys.path.append(str(file))
    PluginManager()

    assert lock().files == {f"{package}.py": sha256(GOOD_PLUGIN.encode()).hexdigest()}


def test_a_file_of_a_zip_that_is_damaged_is_locked_as_none(package, tmp_path):
    file = write_zip(tmp_path / "acme.zip", package, RECORD=f"{package}/nets.py,,\n")
    content = bytearray(file.read_bytes())
    content[content.index(f"{package}/nets.py".encode()) + len(f"{package}/nets.py") + 3] ^= 0xFF
    file.write_bytes(content)
    sys.path.append(str(file))

    assert lock().files == {f"{package}/nets.py": None}


@pytest.mark.parametrize("again", ["itself", "link"])
def test_a_zip_that_is_on_the_path_twice_counts_once(package, tmp_path, caplog, again):
    file = write_zip(tmp_path / "acme.zip", package)
    (tmp_path / "link").symlink_to(file)
    sys.path += [str(file), str(file if again == "itself" else tmp_path / "link")]

    plugins = PluginManager()

    assert record_of(plugins, "acme-zip").shadowed == []
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"METADATA": None}, "MetadataNotFound: "),
        ({"METADATA": "Version: 1.0\n"}, "KeyError: 'Name'"),
        ({"METADATA": "Name: acme-zip\n"}, "KeyError: 'Version'"),
        ({"METADATA": "Name:\nVersion: 1\n"}, "ValueError: METADATA has an empty Name or Version"),
        ({"METADATA": METADATA.encode() + b"Author: J\xf6rg\n"}, "UnicodeDecodeError: "),
        ({"entry_points__txt": "[pymodules]\nno equals sign\n"}, "TypeError: "),
        ({"entry_points__txt": b"[pymodules]\nplugin = x\n# \xff\n"}, "UnicodeDecodeError: "),
    ],
    ids=["none", "no name", "no version", "empty name", "latin", "no equals", "no UTF-8"],
)
def test_damaged_metadata_in_a_zip_is_one_fault_and_hides_no_other(
    package, tmp_path, install_distribution, caplog, files, reason
):
    install_distribution("acme-good", GOOD_PLUGIN)
    file = write_zip(tmp_path / "acme.zip", package, **files)
    sys.path += [str(file), str(file)]

    plugins = PluginManager()

    (failed,) = [record for record in plugins.records if record.failure]
    assert failed.name == INFO
    assert failed.failure.reason.startswith(reason)
    assert failed.failure.remedy == f"reinstall the distribution, or remove {file}"
    assert [spec.name for spec in plugins.provided_specs()] == ["good"]
    assert find_tasks() == {}
    assert len(caplog.messages) == 1


def test_entry_points_of_a_zip_that_cannot_be_read_are_one_fault(package, tmp_path, caplog):
    file = write_zip(tmp_path / "acme.zip", package)
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo(f"{INFO}/entry_points.txt").header_offset
    content = bytearray(file.read_bytes())
    content[start + 30 + len(f"{INFO}/entry_points.txt") + 3] ^= 0xFF
    file.write_bytes(content)
    sys.path.append(str(file))

    plugins = PluginManager()

    (failed,) = [record for record in plugins.records if record.failure]
    assert failed.name == INFO
    assert find_tasks() == {}
    assert len(caplog.messages) == 1


def _truncated(file: Path) -> object:
    file.write_bytes(file.read_bytes()[:-40])
    return str(file)


def _no_zip(file: Path) -> object:
    file.write_text("hello")
    return str(file)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncated, ERROR_OF_ZIP),
        (_no_zip, ERROR_OF_ZIP),
        (Path, "TypeError: Python imports from a str, and this is PosixPath"),
    ],
    ids=["truncated", "text", "Path"],
)
def test_what_python_imports_nothing_from_is_one_fault_and_hides_no_other(
    package, tmp_path, install_distribution, caplog, damage, reason
):
    install_distribution("acme-good", GOOD_PLUGIN)
    entry = damage(write_zip(tmp_path / "acme.zip", package))
    sys.path += [entry, entry, str(tmp_path / "not_there")]

    plugins = PluginManager()

    (failed,) = [record for record in plugins.records if record.failure]
    assert failed.name == str(entry)
    assert caplog.messages == [
        f"plugin {entry}: metadata failed: {reason}\n"
        "  fix: replace it by the str of a readable folder or zip, or take it off sys.path, or "
        f'switch it off: [plugins] disable = ["{entry}"]'
    ]
    assert [spec.name for spec in plugins.provided_specs()] == ["good"]
    assert find_tasks() == {}


def test_a_folder_that_may_not_be_read_is_one_fault(tmp_path, install_distribution, monkeypatch):
    install_distribution("acme-good", GOOD_PLUGIN)
    folder, scandir = tmp_path / "secret", os.scandir
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])

    def refuse(path):  # whoever is root may read everything
        if path == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    plugins = PluginManager()

    (failed,) = [record for record in plugins.records if record.failure]
    assert (failed.name, failed.failure.reason) == (
        str(folder),
        f"PermissionError: [Errno 13] Permission denied: '{folder}'",
    )
    assert [spec.name for spec in plugins.provided_specs()] == ["good"]


@pytest.mark.long
def test_a_run_with_a_module_of_a_zip_resumes_until_the_zip_changes(package, tmp_path):
    zipped = write_zip(tmp_path / "acme.zip", package)
    task = TINY_TASK.replace(
        "module_pool.net(inputs)", "module_pool.net(module_pool.zipped(inputs))"
    )
    write_experiment(tmp_path / "data", "e", task=task)

    def pymodules(*arguments, code=0):
        home = ("--data-home", str(tmp_path / "data"))
        result = start_command(*arguments, *home, PYTHONPATH=str(zipped))
        assert result.returncode == code, result.stderr
        return result

    pymodules("train", "e", "--epochs", "1")
    pymodules("train", "e", "--epochs", "2", "--resume", "--nproc", "2")
    assert "RECORDED" in pymodules("eval", "e").stdout
    write_zip(zipped, package, RECORD=f"{package}/__init__.py,,\n")

    refused = pymodules("train", "e", "--epochs", "3", "--resume", code=2)

    assert f"plugin acme-zip 1.0: its files changed: {package}/nets.py" in refused.stderr


@pytest.mark.parametrize("command", ["plugins", "list", "--version", "new-plugin"])
def test_every_command_goes_past_all_of_them(package, tmp_path, command):
    good = write_zip(tmp_path / "good.whl", package)
    bad = write_zip(tmp_path / "bad.whl", "other", info="other.dist-info", METADATA=None)
    torn = write_zip(tmp_path / "torn.whl", "torn")
    _truncated(torn)
    entries = [str(good), str(bad), str(torn), Path("x"), None]
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nfrom pathlib import Path, PosixPath\nsys.path += {entries!r}\n"
    )
    more = ("acme-new", "--folder", str(tmp_path)) if command == "new-plugin" else ()

    result = start_command(command, *more, PYTHONPATH=str(tmp_path))

    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    shown = {"plugins": "acme-zip:plugin", "list": "zipped", "new-plugin": "wrote"}
    assert shown.get(command, "pymodules 0") in result.stdout
    assert result.stdout.count("built in") == (command == "plugins")
    count = 4 if command in {"plugins", "list"} else 0
    assert result.stderr.count("warning: plugin ") == count


def test_a_disabled_plugin_in_a_zip_is_listed_and_not_imported(package, tmp_path, monkeypatch):
    monkeypatch.setenv("PYMODULES_DISABLE_PLUGINS", "acme-zip")
    sys.path.append(str(write_zip(tmp_path / "acme.zip", package)))

    plugins = PluginManager()

    assert record_of(plugins, "acme-zip").state == "disabled"
    assert package not in sys.modules
