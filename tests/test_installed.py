"""Which of several copies of a distribution counts, whatever else is installed."""

import sys

import pytest
from support import GOOD_PLUGIN

from pymodules_core.installed import distributions, find_distribution


@pytest.mark.parametrize(
    "metadata",
    [None, b"Version: 2.0\n", b"Name: acme-good\nVersion: 2.0\nAuthor: J\xf6rg\n"],
    ids=["none", "no name", "latin"],
)
def test_a_copy_with_damaged_metadata_hides_no_whole_one(
    install_distribution, tmp_path, monkeypatch, metadata
):
    damaged = install_distribution("acme-good", GOOD_PLUGIN, version="2.0")
    install_distribution("acme-good", GOOD_PLUGIN, version="1.0", folder=tmp_path / "other")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "other")])
    (damaged / "METADATA").unlink()
    if metadata is not None:
        (damaged / "METADATA").write_bytes(metadata)

    assert find_distribution("acme-good").version == "1.0"


def test_one_that_is_not_installed_is_none():
    assert find_distribution("no-such-distribution") is None


def test_a_folder_that_is_on_the_path_twice_is_read_once(
    install_distribution, tmp_path, monkeypatch
):
    install_distribution("acme-good", GOOD_PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, "site", None, str(tmp_path / "site" / "..")])

    assert len(list(distributions("acme-good"))) == 1
