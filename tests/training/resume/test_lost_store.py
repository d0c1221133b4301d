"""A run whose commits are lost is never started over by ``--resume``, nor called whole."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import TINY_TASK, write_experiment

from pymodules_core import CheckpointManager, ModulePool, Trainer
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.tools.repair import repair
from pymodules_core.cli.main import run
from pymodules_core.errors import CheckpointError, LostStoreError
from pymodules_core.run_files import read_run_facts
from pymodules_core.training.run_output.console import SilentPrinter

DATA = Path("data/experiments/tiny/data")
CKPS = DATA / "module_ckps"
RESET = (
    "pymodules train data/experiments/tiny --reset starts a new run and keeps this one as data.<n>"
)
REPAIR = "pymodules ckpt repair data/experiments/tiny makes a commit of what is whole; or "


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_experiment(folder / "data")
    assert run(["train", "tiny", "--data-home", str(folder / "data")]) == 0
    return folder / "data"


@pytest.fixture
def tiny(trained, home) -> Path:
    subprocess.run(["cp", "-a", trained, home], check=True)
    return home


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lose_folder() -> None:
    shutil.rmtree(CKPS)


def empty_folder() -> None:
    shutil.rmtree(CKPS)
    CKPS.mkdir()


def lose_hidden_files() -> None:
    shutil.rmtree(CKPS / ".store")


def lose_commits() -> None:
    shutil.rmtree(CKPS / ".store/commits")


def lose_records() -> None:
    for record in (CKPS / ".store/commits").iterdir():
        record.unlink()


def damage_records() -> None:
    for record in (CKPS / ".store/commits").iterdir():
        record.chmod(0o644)
        record.write_text("{}")


def lose_records_and_pools() -> None:
    lose_records()
    for path in CKPS.glob("[!.]*"):
        shutil.rmtree(path)


# What is lost, what the message says of it, and what is to be put back.
LOSSES: dict[str, tuple[Callable[[], None], str, str, str]] = {
    "folder": (lose_folder, f"{CKPS} is missing", f"{CKPS}", ""),
    "folder is empty": (empty_folder, f"{CKPS}/.store is missing", f"{CKPS}/.store", ""),
    "hidden files": (lose_hidden_files, f"{CKPS}/.store is missing", f"{CKPS}/.store", REPAIR),
    "commits": (
        lose_commits,
        f"{CKPS}/.store/commits is missing",
        f"{CKPS}/.store/commits",
        REPAIR,
    ),
    "records": (lose_records, f"{CKPS}/.store/commits is empty", f"{CKPS}", REPAIR),
    "records, all damaged": (
        damage_records,
        f"no record in {CKPS}/.store/commits can be read",
        f"{CKPS}",
        REPAIR,
    ),
    "records and pools": (
        lose_records_and_pools,
        f"{CKPS}/.store/commits is empty",
        f"{CKPS}",
        "",
    ),
}


@pytest.fixture(params=LOSSES)
def loss(request, tiny) -> str:
    """Lose something, and return the message."""
    lose, missing, back, repair_first = LOSSES[request.param]
    lose()
    facts = read_run_facts(DATA.parent)
    assert (facts["epoch"], facts["commit"]) == (2, 6)
    return (
        f"error: {DATA}/run.json: the run is in epoch 2, step {facts['step']}, but its commits are "
        f"lost: {missing}\n"
        f"  fix: {repair_first}put {back} back from a copy, with its hidden files; or {RESET}\n"
    )


@pytest.mark.parametrize("options", [[], ["--nproc", "2"], ["--epochs", "9"]], ids=" ".join)
def test_a_resume_without_its_commits_is_refused_once_and_writes_nothing(loss, options, capsys):
    before = files_below(DATA.parent)

    assert run(["train", "tiny", "--resume", *options]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    errors = captured.err[captured.err.index("error: ") :]
    assert errors == loss
    assert files_below(DATA.parent) == before


def test_the_trainer_refuses_it_as_well(loss):
    before = files_below(DATA.parent)
    trainer = Trainer("tiny", existing="resume", reporter=SilentPrinter())

    with pytest.raises(LostStoreError) as caught:
        trainer.fit()

    assert f"error: {caught.value}\n" == loss
    assert caught.value.exit_code == 2
    assert files_below(DATA.parent) == before


def test_eval_status_and_ls_say_so_and_change_nothing(loss, capsys):
    before = files_below(DATA.parent)

    code = run(["eval", "tiny"])
    captured = capsys.readouterr()
    if any(CKPS.glob("[!.]*")):  # the plain files that are left
        assert code == 0
        assert loss.replace("error: ", "warning: ") in captured.err
        assert "tiny, pool best\n" in captured.out
    else:
        assert (code, captured.err.endswith(loss)) == (2, True)
    assert run(["status", "tiny"]) == 0
    assert "finished" in capsys.readouterr().out
    run(["ckpt", "ls", "tiny"])
    assert loss.removeprefix("error: ") in capsys.readouterr().err
    assert files_below(DATA.parent) == before


def test_verify_fails_and_continues_to_the_next(loss, capsys, tmp_path):
    write_experiment(Path("data"), "other")
    assert run(["train", "other"]) == 0
    before = files_below(DATA.parent)
    capsys.readouterr()

    assert run(["ckpt", "verify", "tiny", "other"]) == 1

    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "other: 6 objects and 5 files are whole"
    assert "0 objects" not in captured.out
    if "can be read" not in loss:
        assert captured.err == loss
    assert files_below(DATA.parent) == before


def test_the_fixes_work(loss, capsys):
    if "ckpt repair" in loss:
        assert run(["ckpt", "repair", "data/experiments/tiny"]) == 0
        assert run(["ckpt", "verify", "tiny"]) == 0
        assert run(["train", "tiny", "--resume", "--epochs", "3"]) == 0
        assert "after epoch 2" in capsys.readouterr().err
    else:
        assert run(["train", "data/experiments/tiny", "--reset", "--yes"]) == 0
        assert len((DATA.parent / "data.1/metrics.jsonl").read_text().splitlines()) == 5
        assert run(["train", "tiny", "--resume"]) == 0


@pytest.mark.parametrize(
    ("harm", "file", "what"),
    [
        ((DATA / "run.json").unlink, "metrics.jsonl", "holds the metrics of a run"),
        (
            lambda: (DATA / "run.json").write_text('{"state": "fini'),
            "run.json",
            "run.json of a run cannot be read",
        ),
        (
            lambda: (DATA / "run.json").write_text("[]"),
            "run.json",
            "run.json of a run cannot be read",
        ),
    ],
    ids=["lost", "torn", "a list"],
)
def test_metrics_or_a_run_file_that_cannot_be_read_are_of_a_run_too(tiny, capsys, harm, file, what):
    lose_folder()
    harm()
    before = files_below(DATA.parent)

    assert run(["train", "tiny", "--resume"]) == 2

    error = capsys.readouterr().err
    assert f"error: {DATA}/{file}: {what}, but its commits are lost: {CKPS} is missing\n" in error
    assert run(["ckpt", "verify", "tiny"]) == 1
    assert run(["status"]) == 0
    assert files_below(DATA.parent) == before


def test_the_pools_of_a_store_without_commits_are_of_a_run_too(tiny, capsys):
    lose_records()
    (DATA / "run.json").unlink()
    (DATA / "metrics.jsonl").unlink()
    before = files_below(DATA.parent)

    assert run(["train", "tiny", "--resume"]) == 2

    assert f"error: {CKPS}: holds frzn, init, last, best, " in capsys.readouterr().err
    assert files_below(DATA.parent) == before


def test_a_run_file_of_an_older_version_is_of_a_run_with_commits(tiny, capsys):
    facts = read_run_facts(DATA.parent)
    del facts["commit"]
    (DATA / "run.json").write_text(json.dumps(facts))
    lose_folder()

    assert run(["train", "tiny", "--resume"]) == 2


def test_a_run_that_is_there_is_resumed_where_its_run_file_and_metrics_are_lost(tiny):
    (DATA / "run.json").unlink()
    (DATA / "metrics.jsonl").unlink()

    assert run(["train", "tiny", "--resume", "--epochs", "3"]) == 0
    assert read_run_facts(DATA.parent)["epoch"] == 3


def test_a_run_that_failed_before_its_first_commit_is_started_by_a_resume(home, capsys):
    task = TINY_TASK + "\n\ndef weights_ready(run):\n    raise OSError(28, 'no space')\n"
    path = write_experiment(Path("data"), task=task)
    assert run(["train", "tiny"]) == 1
    facts = read_run_facts(path)
    assert (facts["state"], facts["commit"]) == ("failed", None)
    (path / "pymodules/task.py").write_text(TINY_TASK)

    assert run(["train", "tiny", "--resume"]) == 0
    assert read_run_facts(path)["state"] == "finished"


def test_what_a_kill_before_the_first_commit_leaves_is_started_by_a_resume(home, capsys):
    write_experiment(Path("data"))
    for name in ("objects", "commits", "stage"):
        (CKPS / ".store" / name).mkdir(parents=True)
    (CKPS / ".store/objects" / f"{'0' * 64}.pt").write_bytes(b"of no commit")

    assert run(["train", "tiny", "--resume"]) == 0


def test_of_an_experiment_that_never_ran_verify_says_so(home, capsys):
    write_experiment(Path("data"))
    error = (
        f"error: {CKPS}: experiment 'tiny' has no checkpoints yet\n  fix: pymodules train tiny\n"
    )
    assert run(["ckpt", "verify", "tiny"]) == 2
    assert capsys.readouterr().err == error

    for name in ("objects", "commits", "stage"):
        (CKPS / ".store" / name).mkdir(parents=True)
    for command in ("verify", "ls", "repair"):
        assert run(["ckpt", command, "tiny"]) == 2
        assert capsys.readouterr().err == error


def test_objects_without_commits_are_never_called_whole_nor_deleted(tiny, capsys):
    shutil.copytree(CKPS, "pools", symlinks=True)
    shutil.rmtree("pools/.store/commits")
    for path in Path("pools").glob("[!.]*"):
        shutil.rmtree(path)
    before = files_below(Path("pools"))

    assert run(["ckpt", "verify", "./pools"]) == 1

    assert capsys.readouterr().err == (
        "error: pools/.store/objects: holds 6 objects, but its commits are lost: "
        "pools/.store/commits is missing\n"
        "  fix: put pools/.store/commits back from a copy, with its hidden files\n"
    )
    assert run(["ckpt", "repair", "./pools"]) == 2
    assert run(["ckpt", "ls", "./pools"]) == 2
    assert files_below(Path("pools")) == before
    assert repair(Path("pools")).commit is None
    assert len(list(Layout(Path("pools")).quarantine.iterdir())) == 6


def test_a_manager_without_its_commits_refuses_both_ways(tiny):
    lose_records()
    pool = ModulePool.from_modules({})
    before = files_below(DATA.parent)

    with CheckpointManager(CKPS, pool) as checkpoints:
        for use in (checkpoints.start, checkpoints.resume):
            with pytest.raises((CheckpointError, FileExistsError)):
                use()

    assert files_below(DATA.parent) == before
