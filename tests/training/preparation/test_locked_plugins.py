"""What a run keeps of the files of its plugins, and what a resume says of files that changed."""

import json

import pytest
from plugin_cases import PROVIDER, Site
from support import write_experiment

from pymodules_core import Trainer
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import encode_record
from pymodules_core.checkpoints.tools.lineage import newest_record
from pymodules_core.discovery.plugins.distribution_files import digest_of_files
from pymodules_core.errors import RunChangedError
from pymodules_core.run_files import checkpoints_dir
from pymodules_core.training.run_output.console import SilentPrinter

FILES = {"nets.py": "x = 1\n", **{f"part_{n}.py": "" for n in range(7)}}
BYSTANDER = """
from pymodules_core import hookimpl

@hookimpl
def run_finished(run):
    pass
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    site = Site(tmp_path / "site", monkeypatch)
    yield site
    site.close()


@pytest.fixture
def path(site, home):
    site.install("acme-nets", PROVIDER, files=FILES)
    site.install("acme-logger", BYSTANDER)
    return write_experiment(home)


def fit(path, *, epochs=2, existing="refuse", accept_changes=False):
    return Trainer(
        path,
        existing=existing,
        accept_changes=accept_changes,
        overrides={"train.epochs": epochs},
        reporter=SilentPrinter(),
    ).fit()


def run_facts(path):
    return json.loads((path / "data" / "run.json").read_text())


def changes_of(path):
    with pytest.raises(RunChangedError) as caught:
        fit(path, epochs=3, existing="resume")
    return caught.value.found


def test_run_json_has_the_files_of_what_provided_modules(path):
    fit(path)

    (locked,) = run_facts(path)["distributions"]
    assert (locked["distribution"], locked["version"], locked["editable"]) == (
        "acme-nets",
        "1.0",
        False,
    )
    assert set(locked["files"]) == {f"acme_nets/{name}" for name in ("__init__.py", *FILES)}


def test_a_commit_has_one_digest_a_distribution(path):
    fit(path)

    record = newest_record(path)
    (locked,) = run_facts(path)["distributions"]
    assert record.provenance["distributions"] == {"acme-nets": digest_of_files(locked["files"])}


def test_files_that_changed_under_one_version_are_named_and_refused(site, path):
    fit(path)
    folder = site.install("acme-nets", PROVIDER, files=FILES | {"new.py": ""})
    (folder / "nets.py").write_text("x = 2\n")

    with pytest.raises(RunChangedError) as caught:
        fit(path, epochs=3, existing="resume")

    assert str(caught.value) == (
        "experiment 'tiny' is not what its run began with\n"
        "  plugin acme-nets 1.0: its files changed: acme_nets/nets.py, acme_nets/new.py\n"
        "  fix: put it back, or resume with the changes: --resume --accept-changes"
    )


def test_many_changed_files_are_counted(site, path):
    fit(path)
    site.install("acme-nets", PROVIDER, files={})

    assert changes_of(path) == [
        "plugin acme-nets 1.0: its files changed: acme_nets/nets.py, acme_nets/part_0.py, "
        "acme_nets/part_1.py, acme_nets/part_2.py, acme_nets/part_3.py, … (3 more)"
    ]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"distributions": [3, {}]}'])
def test_without_a_readable_run_json_the_change_is_reported_without_names(site, path, content):
    fit(path)
    site.install("acme-nets", PROVIDER, files={})
    run_file = path / "data" / "run.json"
    run_file.unlink() if content is None else run_file.write_text(content)

    assert changes_of(path) == ["plugin acme-nets 1.0: its files changed"]


def test_a_run_json_of_another_process_names_no_files(site, path):
    fit(path)
    facts = run_facts(path)
    facts["distributions"][0]["files"]["acme_nets/nets.py"] = "0" * 64
    (path / "data" / "run.json").write_text(json.dumps(facts))
    site.install("acme-nets", PROVIDER, files={})

    assert changes_of(path) == ["plugin acme-nets 1.0: its files changed"]


def test_accepted_files_are_what_the_next_resume_compares_with(site, path):
    fit(path)
    site.install("acme-nets", PROVIDER, files={})

    fit(path, epochs=3, existing="resume", accept_changes=True)

    assert fit(path, epochs=4, existing="resume").epochs == 4


def test_another_version_is_reported_once(site, path):
    fit(path)
    site.install("acme-nets", PROVIDER, version="1.1", files={})

    assert changes_of(path) == ["plugin acme-nets:plugin: 1.0 -> 1.1"]


def test_what_changed_in_an_editable_install_is_reported(site, home):
    folder = site.install("acme-nets", PROVIDER, files=FILES, is_editable=True)
    path = write_experiment(home)
    fit(path)
    (folder / "nets.py").write_text("x = 2\n")

    assert changes_of(path) == ["plugin acme-nets 1.0: its files changed: acme_nets/nets.py"]


def test_a_plugin_without_modules_may_change(site, path):
    fit(path)
    site.install("acme-logger", BYSTANDER + "\n# changed\n")

    assert fit(path, epochs=3, existing="resume").epochs == 3


def test_commits_of_older_versions_are_not_complained_about(site, path):
    fit(path)
    record = newest_record(path)
    del record.provenance["distributions"]
    layout = Layout(checkpoints_dir(path))
    file = layout.record(record.number)
    file.chmod(0o644)
    file.write_bytes(encode_record(record))
    site.install("acme-nets", PROVIDER, files={})

    assert fit(path, epochs=3, existing="resume").epochs == 3
