"""Metadata of installed distributions: damaged, doubled, editable."""

import json
import sys

import pytest
from support import GOOD_PLUGIN, record_of

from pymodules_core.discovery import PluginManager


def test_a_distribution_that_appears_twice_counts_once_and_is_told(
    install, tmp_path, monkeypatch, caplog
):
    install("acme-good", GOOD_PLUGIN, version="2.0")
    install("acme-good", GOOD_PLUGIN, version="1.0", folder=tmp_path / "stale")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "stale")])

    plugins = PluginManager()

    assert record_of(plugins, "acme-good").origin.version == "2.0"
    assert "acme-good:plugin is installed twice; acme-good 2.0 (plugin) is used" in caplog.text
    assert len(plugins.provided_specs()) == 1


def test_an_editable_install_is_recognised(install):
    info = install("acme-good", GOOD_PLUGIN)
    (info / "direct_url.json").write_text(
        json.dumps({"url": "file:///src", "dir_info": {"editable": True}})
    )

    plugins = PluginManager()

    assert record_of(plugins, "acme-good").is_editable is True


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("entry_points.txt", b"[pymodules]\nno equals sign\n", "TypeError: "),
        ("entry_points.txt", b"[pymodules]\nplugin = acme_bad\n# \xff\n", "UnicodeDecodeError: "),
        ("METADATA", b"Name: acme-bad\n", "KeyError: "),
        ("METADATA", None, "MetadataNotFound: "),
    ],
)
def test_damaged_metadata_drops_its_distribution_and_no_other(
    install, caplog, file, content, reason
):
    install("acme-good", GOOD_PLUGIN)
    info = install("acme-bad", GOOD_PLUGIN)
    (info / file).unlink()
    if content is not None:
        (info / file).write_bytes(content)

    plugins = PluginManager()

    (failed,) = [record for record in plugins.records if record.failure]
    assert failed.name == "acme_bad-1.0.dist-info"
    assert failed.failure.stage == "metadata"
    assert failed.failure.reason.startswith(reason)
    assert failed.failure.fix == (
        "reinstall the distribution, or remove its folder, "
        'or switch it off: [plugins] disable = ["acme_bad-1.0.dist-info"]'
    )
    assert [spec.name for spec in plugins.provided_specs()] == ["good"]


def test_unreadable_metadata_of_no_plugin_is_nobodys_business(install, caplog):
    info = install("acme-other", GOOD_PLUGIN)
    (info / "entry_points.txt").write_bytes(b"[console_scripts]\n# \xff\n")

    plugins = PluginManager()

    assert not any(record.failure for record in plugins.records)
    assert caplog.messages == []
