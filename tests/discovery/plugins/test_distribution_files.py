"""What is hashed of an installed distribution, and what is not."""

import hashlib
import subprocess
import sys

import pytest
from plugin_cases import Site

from pymodules_core.discovery.plugins.distribution_files import digest_of_files, lock_distributions
from pymodules_core.specs import CodeOrigin, DistributionOrigin, FileOrigin

FILES = {"nets.py": "x = 1\n", "data/weights.bin": "01"}


@pytest.fixture
def site(tmp_path, monkeypatch):
    site = Site(tmp_path / "site", monkeypatch)
    yield site
    site.close()


def origin_of(name, version="1.0"):
    return DistributionOrigin(name, version, "plugin")


def lock(name="acme-nets"):
    (locked,) = lock_distributions([origin_of(name)])
    return locked


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_wheels_files_are_hashed_as_they_are_on_disk(site):
    folder = site.install("acme-nets", "", files=FILES)
    (folder / "nets.py").write_text("x = 2\n")

    locked = lock()

    assert (locked.distribution, locked.version, locked.editable) == ("acme-nets", "1.0", False)
    assert locked.files == {
        "acme_nets/__init__.py": sha256(""),
        "acme_nets/data/weights.bin": sha256("01"),
        "acme_nets/nets.py": sha256("x = 2\n"),
    }


def test_byte_code_metadata_scripts_and_files_of_others_stay_out(site):
    folder = site.install("acme-nets", "", files=FILES)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "nets.cpython-311.pyc").write_text("")
    (folder / "of_nobody.py").write_text("")
    (folder / "old.pyc").write_text("")
    (site.folder / ".." / "bin").mkdir()
    (site.folder / ".." / "bin" / "acme").write_text("#!/home/me/python\n")
    (site.folder / ".." / "share.txt").write_text("data")
    record = next(site.folder.glob("*.dist-info")) / "RECORD"
    more = (
        "acme_nets/__pycache__/nets.cpython-311.pyc,,\nacme_nets/old.pyc,,\n"
        "../bin/acme,,\n../share.txt,,\n"
    )
    record.write_text(record.read_text() + more)

    assert set(lock().files) == {
        "../share.txt",
        "acme_nets/__init__.py",
        "acme_nets/data/weights.bin",
        "acme_nets/nets.py",
    }


@pytest.mark.parametrize("options", [{"is_editable": True}, {"has_record": False}])
def test_without_a_list_the_files_of_the_plugins_package_count(site, options):
    folder = site.install("acme-nets", "", files=FILES, **options)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "nets.cpython-311.pyc").write_text("")
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_text("")
    (folder / ".nets.py.swp").write_text("")
    (folder / "new.py").write_text("")

    locked = lock()

    assert locked.editable is options.get("is_editable", False)
    assert set(locked.files) == {
        "acme_nets/__init__.py",
        "acme_nets/data/weights.bin",
        "acme_nets/nets.py",
        "acme_nets/new.py",
    }


def test_a_wheel_and_an_editable_install_of_the_same_files_are_equal(site):
    site.install("acme-nets", "", files=FILES)
    wheel = lock()

    site.install("acme-nets", "", files=FILES, is_editable=True)

    assert lock().files == wheel.files


def test_a_single_file_module_is_one_file(site):
    site.install("acme-nets", "", is_editable=True)
    (site.projects / "acme_nets" / "__init__.py").unlink()
    (site.projects / "acme_nets").rmdir()
    (site.projects / "acme_nets.py").write_text("y = 1\n")

    assert lock().files == {"acme_nets.py": sha256("y = 1\n")}


def test_of_a_namespace_package_only_the_distributions_own_part_counts(site):
    site.install("acme-nets", "", is_editable=True)
    for part in ("nets", "other"):
        (site.projects / "acme" / part).mkdir(parents=True)
        (site.projects / "acme" / part / "__init__.py").write_text("")
    points = next(site.folder.glob("*.dist-info")) / "entry_points.txt"
    points.write_text("[pymodules]\nplugin = acme.nets:plugin\n")

    assert set(lock().files) == {"acme/nets/__init__.py"}


def test_the_package_of_a_task_counts(site):
    site.install("acme-tasks", "", is_editable=True)
    points = next(site.folder.glob("*.dist-info")) / "entry_points.txt"
    points.write_text("[pymodules.tasks]\nregression = acme_tasks\n")

    assert set(lock("acme-tasks").files) == {"acme_tasks/__init__.py"}


def test_a_package_that_is_not_importable_has_no_files(site):
    site.install("acme-nets", "", is_editable=True)
    points = next(site.folder.glob("*.dist-info")) / "entry_points.txt"
    points.write_text("[pymodules]\nplugin = nowhere.at.all\n")

    assert lock().files == {}


@pytest.mark.skipif(sys.platform == "win32", reason="permissions")
def test_a_listed_file_that_cannot_be_read_is_none(site):
    folder = site.install("acme-nets", "", files=FILES)
    (folder / "nets.py").unlink()
    (folder / "nets.py").mkdir()

    locked = lock()

    assert locked.files["acme_nets/nets.py"] is None
    assert digest_of_files(locked.files) != digest_of_files(
        {**locked.files, "acme_nets/nets.py": ""}
    )


def test_each_distribution_is_there_once_and_only_installed_ones(site, tmp_path):
    site.install("acme-nets", "")
    site.install("acme-data", "")
    origins = [
        origin_of("acme-nets"),
        DistributionOrigin("acme-nets", "1.0", "second"),
        origin_of("acme-data"),
        origin_of("acme-gone"),
        FileOrigin(tmp_path / "net.py"),
        CodeOrigin("a program"),
    ]

    assert [one.distribution for one in lock_distributions(origins)] == ["acme-data", "acme-nets"]


def test_damaged_facts_of_an_install_count_as_none(site):
    site.install("acme-nets", "", files=FILES)
    (next(site.folder.glob("*.dist-info")) / "direct_url.json").write_text("{")

    assert lock().editable is False


def test_the_digest_hangs_on_names_and_contents_and_not_on_their_order():
    files = {"a.py": "1", "b.py": "2"}

    assert digest_of_files(files) == digest_of_files({"b.py": "2", "a.py": "1"})
    assert digest_of_files(files) != digest_of_files({"a.py": "2", "b.py": "1"})
    assert digest_of_files(files) != digest_of_files({"a.py": "1"})


def test_it_needs_no_torch():
    code = (
        "import sys, pymodules_core.discovery.plugins.distribution_files, "
        "pymodules_core.discovery.plugins.missing; sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
