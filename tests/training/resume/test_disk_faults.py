"""Disks that fill up, fail, or cannot be written to under a run: told, nothing lost.

Where this process may mount file systems the disks are real ones.
"""

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_cases import left_over, outcome_of, run_forked
from support import TINY_TASK, write_experiment

from pymodules_core.cli.main import run

TOML = "[train]\nepochs = 3\nbatch_size = 16\n"
# After epoch 2 a hook does what the environment says, once the commits so far are on disk: what a
# fault comes to that meets one on its way hangs on how far that is.
TASK = (
    TINY_TASK
    + """

def epoch_finished(run):
    import gc, os, shutil, subprocess
    from concurrent.futures import wait
    from pathlib import Path

    from pymodules_core.checkpoints.saving.writer_thread import Writer

    if run.epoch == 2 and "FAULT" in os.environ:
        data = run.data_dir
        store = data / "module_ckps" / ".store"
        for one in gc.get_objects():
            if type(one) is Writer:
                wait(one._pending)
        exec(os.environ.pop("FAULT"))
"""
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the run comes to that nothing stops."""
    path = write_experiment(tmp_path_factory.mktemp("home"), "whole", task=TASK, toml=TOML)
    assert run(["train", str(path)]) == 0
    return outcome_of(path)


@pytest.fixture
def mount(tmp_path) -> Iterator[Callable[..., Path]]:
    """Mounts a small file system in memory; the test is skipped where nobody may."""
    target = tmp_path / "mounted"
    target.mkdir()

    def make(size_bytes: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", target]
        if not shutil.which("mount") or subprocess.run(command, check=False).returncode:
            pytest.skip("file systems cannot be mounted here")
        return target

    yield make
    subprocess.run(["umount", "-l", target], check=False, stderr=subprocess.DEVNULL)


def fill(folder: Path) -> None:
    """Leave not one byte of a file system free."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def with_fault(path: Path, source: str) -> tuple[int, str]:
    code, _, errors = run_forked("train", path, before=lambda: os.environ.update(FAULT=source))
    return code, errors


def check_goes_on(path: Path, whole: object) -> None:
    code, _, errors = run_forked("train", path, "--resume")
    assert (code, errors) == (0, "")
    assert outcome_of(path) == whole
    assert left_over(path) == []


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
    return {name: (status.st_size, status.st_mtime_ns) for name, status in found.items()}


def test_a_real_disk_that_is_full_fails_the_run_which_continues_once_there_is_room(mount, whole):
    home = mount(4 << 20)
    path = write_experiment(home, "full", task=TASK, toml=TOML)
    ballast = (
        f"with open({str(home / 'ballast')!r}, 'wb', buffering=0) as file:\n"
        "    size = 1 << 16\n"
        "    while size:\n"
        "        try:\n            file.write(bytes(size))\n"
        "        except OSError:\n            size //= 2\n"
    )

    code, errors = with_fault(path, ballast)

    assert code == 1
    told, fix = errors.splitlines()
    assert told.startswith(f"error: {path}/data/")
    assert ": cannot be written: No space left on device; it needs up to " in told
    assert told.endswith(" bytes and 0 are free")
    assert fix == "  fix: make room; checkpoints saved before are intact"
    assert left_over(path) == []
    # It stays full: the same again, and nothing is lost by trying.
    code, _, errors = run_forked("train", path, "--resume")
    assert (code, "No space left on device" in errors) == (1, True)
    (home / "ballast").unlink()
    check_goes_on(path, whole)


def test_a_real_disk_that_is_full_from_the_start_is_reported_and_the_run_begins_later(mount, whole):
    home = mount(4 << 20)
    path = write_experiment(home, "full", task=TASK, toml=TOML)
    fill(home)

    code, _, errors = run_forked("train", path)

    assert code == 1
    assert errors == (
        f"error: {path}/data/module_ckps: cannot be written: No space left on device\n"
        "  fix: make room; checkpoints saved before are intact\n"
    )
    (home / "ballast").unlink()
    check_goes_on(path, whole)


def test_a_real_read_only_home_is_reported_before_training_and_can_be_read(mount):
    home = mount(8 << 20)
    done = write_experiment(home, "done", task=TASK, toml=TOML)
    fresh = write_experiment(home, "fresh", task=TASK, toml=TOML)
    assert run_forked("train", done)[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", home], check=True)
    before = tree(home)

    refused = {
        f"{fresh}/data": ("train", fresh),
        f"{done}/data/module_ckps": ("train", done, "--resume", "--epochs", "4"),
    }
    for where, command in refused.items():
        code, output, errors = run_forked(*command)
        assert code == 1
        assert "train loss" not in output
        assert errors == (
            f"error: {where}: cannot be written: Read-only file system\n"
            "  fix: make it writable; checkpoints saved before are intact\n"
        )
    for command in (("status", done), ("ckpt", "verify", done), ("check", fresh), ("eval", done)):
        assert run_forked(*command)[0] == 0
    assert tree(home) == before


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("data", "run.json"),
        ("store / 'stage'", "module_ckps"),
        ("data / 'metrics.jsonl'", "metrics.jsonl"),
    ],
)
def test_a_place_that_turns_immutable_is_named_and_the_run_continues_later(
    tmp_path, whole, what, where
):
    path = write_experiment(tmp_path, "immutable", task=TASK, toml=TOML)
    probe = tmp_path / "probe"
    probe.touch()
    if (
        not shutil.which("chattr")
        or subprocess.run(["chattr", "+i", probe], check=False).returncode
    ):
        pytest.skip("files cannot be made immutable here")
    subprocess.run(["chattr", "-i", probe], check=True)

    code, errors = with_fault(path, f"subprocess.run(['chattr', '+i', str({what})], check=True)")

    subprocess.run(["chattr", "-R", "-f", "-i", path], check=False)
    assert (code, errors) == (
        1,
        f"error: {path}/data/{where}: cannot be written: Operation not permitted\n"
        "  fix: make it writable; checkpoints saved before are intact\n",
    )
    check_goes_on(path, whole)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("shutil.rmtree(store / 'objects')", "/objects"),
        ("os.unlink(data / 'metrics.jsonl'); os.mkdir(data / 'metrics.jsonl')", "Is a directory\n"),
    ],
)
def test_a_folder_that_is_gone_or_in_the_way_is_named(tmp_path, source, told):
    path = write_experiment(tmp_path, "gone", task=TASK, toml=TOML)

    code, errors = with_fault(path, source)

    assert code == 1
    assert ": cannot be written: " in errors
    assert told in errors
    assert "Traceback" not in errors


def test_data_that_is_removed_under_a_run_is_reported_and_a_new_one_can_begin(tmp_path, whole):
    path = write_experiment(tmp_path, "gone", task=TASK, toml=TOML)

    code, errors = with_fault(path, "run.module_pool; shutil.rmtree(data, ignore_errors=True)")

    assert code == 1
    # A commit that is on its way may have lost its own files, or those of the commits before it.
    assert "something took it away meanwhile" in errors or "is whole: " in errors
    shutil.rmtree(path / "data", ignore_errors=True)  # a commit may have been on its way
    check_goes_on(path, whole)


@pytest.mark.parametrize(
    "source",
    [
        "(data / 'run.json').unlink()",
        "shutil.rmtree(data / 'sources')",
        "(data / 'module_ckps/last/net.pt').unlink()",
        "shutil.rmtree(data / 'module_ckps/epoch_1')",
        "[file.unlink() for file in (store / 'commits').iterdir()]",
    ],
)
def test_what_is_made_again_may_be_removed_under_a_run(tmp_path, whole, source):
    path = write_experiment(tmp_path, "removed", task=TASK, toml=TOML)

    assert with_fault(path, source) == (0, "")

    check_goes_on(path, whole)


def test_objects_that_are_removed_under_a_run_come_back_from_the_pools(tmp_path, whole):
    path = write_experiment(tmp_path, "removed", task=TASK, toml=TOML)
    gone = "[file.unlink() for file in (store / 'objects').iterdir()]"

    assert with_fault(path, gone) == (0, "")

    code, _, errors = run_forked("train", path, "--resume")
    assert code == 0
    assert errors.count("was lost or damaged; made again from") >= 2
    assert outcome_of(path) == whole


def test_commits_that_are_removed_after_a_run_are_made_again_by_the_repair_that_is_named(tmp_path):
    path = write_experiment(tmp_path, "removed", task=TASK, toml=TOML)
    assert with_fault(path, "shutil.rmtree(store / 'commits')")[0] == 1

    code, _, errors = run_forked("train", path, "--resume")

    shown = path / "data/module_ckps"
    assert code == 2
    assert f"fix: pymodules ckpt repair {path} makes a commit of what is whole; or put " in errors
    assert f"pymodules train {path} --reset starts a new run" in errors
    assert run_forked("ckpt", "repair", shown)[0] == 0
    assert run_forked("train", path, "--resume")[0] == 0


def failing_call(name: str, number: int, code: int) -> Callable[[], None]:
    """Let one call of a function of ``os`` fail."""

    def install() -> None:
        real, calls = getattr(os, name), 0

        def call(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                raise OSError(code, os.strerror(code))
            return real(*arguments)

        setattr(os, name, call)

    return install


def check_failing_calls(home: Path, whole: object, name: str, code: int, numbers: range) -> int:
    """Let a run meet a call that fails, and continue; give how many met one."""
    for met, number in enumerate(numbers):
        path = write_experiment(home, f"failing_{number}", task=TASK, toml=TOML)
        exit_code, _, errors = run_forked("train", path, before=failing_call(name, number, code))
        if exit_code == 0:
            assert errors == ""
            return met
        assert exit_code == 1
        assert f"cannot be written: {os.strerror(code)}" in errors
        assert "bug in pymodules" not in errors
        check_goes_on(path, whole)
    return len(numbers)


def test_a_sync_that_fails_anywhere_in_a_run_is_reported_and_the_run_continues(tmp_path, whole):
    assert check_failing_calls(tmp_path, whole, "fsync", errno.EIO, range(9, 30, 17)) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "code"),
    [("fsync", errno.EIO), ("pwrite", errno.ENOSPC), ("pwrite", errno.EDQUOT), ("link", errno.EIO)],
)
def test_any_call_that_fails_is_reported_and_the_run_continues(tmp_path, whole, name, code):
    assert check_failing_calls(tmp_path, whole, name, code, range(1, 500)) > 5


def test_a_disk_that_fails_says_so_and_offers_no_more_room(tmp_path, whole):
    path = write_experiment(tmp_path, "failing", task=TASK, toml=TOML)

    code, _, errors = run_forked("train", path, before=failing_call("pwrite", 5, errno.EIO))

    assert code == 1
    assert errors.splitlines()[:2] == [
        f"error: {path}/data/module_ckps: cannot be written: Input/output error",
        "  fix: the disk itself fails: see the system's log, and save elsewhere; checkpoints "
        "saved before are intact",
    ]
    check_goes_on(path, whole)


def test_a_run_keeps_to_the_umask_and_to_its_own_folder(tmp_path, whole):
    path = write_experiment(tmp_path, "private", task=TASK, toml=TOML)

    def before() -> None:
        os.umask(0o027)
        tempfile.tempdir = "/nowhere"  # whoever asks for a temporary file there fails

    assert run_forked("train", path, before=before)[0] == 0

    modes = {file.stat().st_mode & 0o777 for file in (path / "data").rglob("*") if file.is_file()}
    folders = {file.stat().st_mode & 0o777 for file in (path / "data").rglob("*") if file.is_dir()}
    assert (modes, folders) == ({0o640, 0o440}, {0o750})
    assert outcome_of(path) == whole
