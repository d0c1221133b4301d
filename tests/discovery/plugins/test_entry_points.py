"""Metadata of installed distributions: damaged, doubled, editable."""

import importlib
import json
import sys

import pytest
from support import GOOD_PLUGIN, record_of

from pymodules_core.discovery import PluginManager
from pymodules_core.discovery.plugins.packaged_task import find_tasks


def test_a_distribution_that_appears_twice_counts_once_and_is_reported(
    install_distribution, tmp_path, monkeypatch, caplog
):
    install_distribution("acme-good", GOOD_PLUGIN, version="2.0")
    install_distribution("acme-good", GOOD_PLUGIN, version="1.0", folder=tmp_path / "stale")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "stale")])

    plugins = PluginManager()

    assert record_of(plugins, "acme-good").origin.version == "2.0"
    site, stale = tmp_path / "site", tmp_path / "stale"
    assert caplog.messages == [
        f"acme-good is installed twice: acme-good 2.0 in {site} is used, and acme-good 1.0 in "
        f"{stale} is not. Fix: pip uninstall acme-good until none is left and install it once, "
        "or take one folder or zip off sys.path"
    ]
    assert record_of(plugins, "acme-good").shadowed == [f"acme-good 1.0 in {stale}"]
    assert len(plugins.provided_specs()) == 1


def test_an_entry_point_that_only_the_older_copy_has_is_not_used(
    install_distribution, tmp_path, monkeypatch, caplog
):
    install_distribution("acme-good", GOOD_PLUGIN, version="2.0", entry_point="new")
    stale = tmp_path / "stale"
    install_distribution("acme_good", GOOD_PLUGIN, version="1.0", entry_point="old", folder=stale)
    monkeypatch.setattr(sys, "path", [*sys.path, str(stale)])

    plugins = PluginManager()

    assert [r.name for r in plugins.records if not r.is_builtin] == ["acme-good:new"]
    assert len(caplog.messages) == 1


def test_an_entry_point_that_is_named_twice_is_reported(install_distribution, caplog):
    info = install_distribution("acme-good", GOOD_PLUGIN)
    with (info / "entry_points.txt").open("a") as file:
        file.write("plugin = acme_other\n")

    plugins = PluginManager()

    assert record_of(plugins, "acme-good").target == "acme_good"
    assert caplog.messages == [
        "acme-good 1.0 (plugin) names its entry point twice: acme_good is used, and acme_other is "
        "not. Fix: report it to acme-good"
    ]


def test_an_editable_install_is_recognised(install_distribution):
    info = install_distribution("acme-good", GOOD_PLUGIN)
    (info / "direct_url.json").write_text(
        json.dumps({"url": "file:///src", "dir_info": {"editable": True}})
    )

    plugins = PluginManager()

    assert record_of(plugins, "acme-good").is_editable is True
    assert record_of(plugins, "acme-good").location == "/src"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("entry_points.txt", b"[pymodules]\nno equals sign\n", "TypeError: "),
        ("entry_points.txt", b"[pymodules]\nplugin = acme_bad\n# \xff\n", "UnicodeDecodeError: "),
        ("METADATA", b"Name: acme-bad\n", "KeyError: "),
        ("METADATA", None, "MetadataNotFound: "),
        ("METADATA", b"Name: acme-bad\nVersion: 1\nAuthor: J\xf6rg\n", "UnicodeDecodeError: "),
    ],
)
def test_damaged_metadata_drops_its_distribution_and_no_other(
    install_distribution, caplog, file, content, reason
):
    install_distribution("acme-good", GOOD_PLUGIN)
    info = install_distribution("acme-bad", GOOD_PLUGIN)
    (info / file).unlink()
    if content is not None:
        (info / file).write_bytes(content)

    plugins = PluginManager()

    (failed,) = [record for record in plugins.records if record.failure]
    assert failed.name == "acme_bad-1.0.dist-info"
    assert failed.failure.stage == "metadata"
    assert failed.failure.reason.startswith(reason)
    assert failed.failure.fix == (
        f"reinstall the distribution, or remove {info}, "
        'or switch it off: [plugins] disable = ["acme_bad-1.0.dist-info"]'
    )
    assert [spec.name for spec in plugins.provided_specs()] == ["good"]


def test_unreadable_metadata_of_no_plugin_is_nobodys_business(install_distribution, caplog):
    info = install_distribution("acme-other", GOOD_PLUGIN)
    (info / "entry_points.txt").write_bytes(b"[console_scripts]\n# \xff\n")

    plugins = PluginManager()

    assert not any(record.failure for record in plugins.records)
    assert caplog.messages == []


def test_damaged_tasks_are_reported_and_hide_no_other(install_distribution, caplog):
    install_distribution("acme-tasks", "", group="pymodules.tasks")
    info = install_distribution("acme-bad", "", group="pymodules.tasks")
    (info / "METADATA").unlink()
    other = install_distribution("acme-other", "", group="console_scripts")
    (other / "entry_points.txt").write_text("[console_scripts]\nno equals sign\n")

    assert list(find_tasks()) == ["acme-tasks:plugin"]
    (told,) = caplog.messages
    assert "MetadataNotFound" in told


def test_an_old_egg_info_in_a_folder_is_a_plugin_like_any(install_distribution):
    info = install_distribution("acme-good", GOOD_PLUGIN)
    (info / "METADATA").rename(info / "PKG-INFO")
    info.rename(info.with_suffix(".egg-info"))
    importlib.invalidate_caches()

    plugins = PluginManager()

    assert record_of(plugins, "acme-good").origin.version == "1.0"
    assert [spec.name for spec in plugins.provided_specs()] == ["good"]
