"""A folder of pools that came from a stranger: nothing outside is read, changed or waited for.

Whoever made it wrote its links, pipes and commit records, and their checksums, as they liked.
"""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from blake3 import blake3
from store_cases import commit, images, open_store
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, PoolReader
from pymodules_core.checkpoints.file_format.read import digest_of_file, write_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import (
    MOST_NUMBER,
    encode_record,
    read_record,
    readable_records,
)
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.checkpoints.tools.pruning import prune
from pymodules_core.checkpoints.tools.repair import repair
from pymodules_core.errors import CheckpointError, CheckpointFileError

KINDS = ["link", "circle", "link to nothing", "device", "pipe", "folder"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two epochs, views as copies: what is damaged of an object can be made good."""
    folder = tmp_path_factory.mktemp("made") / "ckps"
    pool = make_pool()
    with CheckpointManager(folder, pool, link="copy") as checkpoints:
        checkpoints.start()
        for epoch in (1, 2):
            pool.net.weight.data.fill_(epoch)
            checkpoints.commit("last", f"epoch_{epoch}", epoch=epoch)
    return folder


@pytest.fixture
def ckps(made, tmp_path) -> Path:
    subprocess.run(["cp", "-a", made, tmp_path / "ckps"], check=True)
    return tmp_path / "ckps"


@pytest.fixture
def outside(tmp_path) -> Path:
    folder = tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    (folder / "precious.txt").write_text("mine")
    (folder / "deep" / "net.pt").write_text("mine too")
    return folder


def make_pool() -> ModulePool:
    return ModulePool.from_modules({"net": nn.Linear(3, 3)})


def resume(folder: Path) -> None:
    with CheckpointManager(folder, make_pool()) as checkpoints:
        checkpoints.resume()


USES: dict[str, Callable[[Path], object]] = {
    "read": lambda folder: PoolReader(folder).read("last"),
    "verify": lambda folder: verify_store(Layout(folder), digest_of_file),
    "repair": repair,
    "prune": lambda folder: prune(folder, ["epoch_1"]),
    "resume": resume,
}


def put(kind: str, path: Path, outside: Path) -> None:
    """Put something else in the place of a file or folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"link": outside, "circle": path.name, "device": "/dev/zero"}
        path.symlink_to(targets.get(kind, "nothing"))


def tree(*folders: Path) -> dict[str, tuple[int, int, int]]:
    status = {str(path): path.lstat() for folder in folders for path in sorted(folder.rglob("*"))}
    return {path: (one.st_mode, one.st_size, one.st_mtime_ns) for path, one in status.items()}


def newest(folder: Path) -> Path:
    layout = Layout(folder)
    return layout.record(readable_records(layout)[0].number)


def forge(record: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a commit record, with a checksum that fits."""
    content = json.loads(record.read_bytes())
    del content["checksum"]
    change(content)
    whole = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
    content["checksum"] = blake3(whole).hexdigest()
    record.chmod(0o644)
    record.write_text(json.dumps(content))


def forge_file(folder: Path, digest: str) -> None:
    """Let the newest record say of an object what the file system says of what is in its place."""
    status = Layout(folder).object(digest).lstat()
    known = {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    forge(newest(folder), lambda content: content["objects"][digest].update(known))


@pytest.mark.parametrize("part", ["", "objects", "commits", "stage", "shown", "quarantine"])
@pytest.mark.parametrize("use", USES)
def test_a_folder_of_a_store_that_is_a_link_is_refused_and_nothing_there_changes(
    ckps, outside, part, use
):
    path = ckps / ".store" / part
    put("link", path, outside)
    before = tree(ckps, outside)

    with pytest.raises(CheckpointFileError) as caught:
        USES[use](ckps)

    assert str(caught.value) == (
        f"{path}: is a link, and a store has a folder of its own there\n"
        "  fix: remove it, or put the folder itself there"
    )
    assert tree(ckps, outside) == before


@pytest.mark.parametrize("name", ["lock", "holder.json"])
@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe", "folder"])
def test_a_file_that_a_writer_writes_is_never_a_link_or_pipe(ckps, outside, name, kind):
    path = ckps / ".store" / name
    put(kind, path, outside / "precious.txt")
    before = tree(ckps, outside)

    with pytest.raises(CheckpointFileError) as caught:
        repair(ckps)

    what = "is a link" if kind.startswith("link") else "is not a file"
    assert str(caught.value) == (
        f"{path}: {what}, and a store has a file of its own there\n"
        "  fix: remove it, or put the file itself there"
    )
    assert tree(ckps, outside) == before


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_is_not_a_file_is_reported_and_the_commit_before_is_read(
    ckps, outside, caplog, kind
):
    layout = Layout(ckps)
    digest = readable_records(layout)[0].pools["last"].modules["net"]
    path = layout.object(digest)
    shutil.copy2(path, outside / "same.pt")
    put(kind, path, outside / "same.pt")  # of the same bytes
    forge_file(ckps, digest)

    found = PoolReader(ckps).read("last")["net"]

    assert (found.epoch, found.state["weight"][0, 0]) == (1, 1)
    assert f"{path}: is damaged: its bytes are not those that were saved" in caplog.text
    damage = verify_store(layout, digest_of_file).damages[0]
    assert (damage.path, damage.reason) == (
        path,
        "is a link, a folder or a pipe, expected a file",
    )
    assert damage.used_by == ("epoch_2/net", "last/net")
    assert repair(ckps).commit == 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_is_not_a_file_is_put_aside_and_made_again(ckps, outside, kind):
    layout = Layout(ckps)
    digest = readable_records(layout)[0].pools["last"].modules["net"]
    put(kind, layout.object(digest), outside / "precious.txt")
    status = layout.object(digest).lstat()
    before = tree(outside)

    assert repair(ckps).lost == []

    assert PoolReader(ckps).read("last")["net"].epoch == 2
    assert stat.S_ISREG(layout.object(digest).lstat().st_mode)
    assert (layout.quarantine / f"1-{digest}.pt").lstat().st_mode == status.st_mode
    assert tree(outside) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_record_that_is_not_a_file_is_a_damaged_one(ckps, outside, caplog, kind):
    path = newest(ckps)
    put(kind, path, outside / "precious.txt")

    assert PoolReader(ckps).read("last")["net"].epoch == 1
    assert f"{path}: is a damaged commit record" in caplog.text
    assert path in {damage.path for damage in verify_store(Layout(ckps), digest_of_file).damages}
    assert repair(ckps).commit == 2

    assert (Layout(ckps).quarantine / f"1-{path.name}").lstat()
    assert (outside / "precious.txt").read_text() == "mine"


def test_a_commit_record_of_terabytes_is_not_read(ckps):
    with newest(ckps).open("rb+") as file:
        file.truncate(2**43)

    assert PoolReader(ckps).read("last")["net"].epoch == 1


def test_a_pipe_in_a_pool_is_reported_and_put_aside(ckps):
    file = ckps / "last" / "net.pt"
    put("pipe", file, ckps)

    [damage] = verify_store(Layout(ckps), digest_of_file).damages
    assert repair(ckps).lost == []

    assert (damage.path, damage.reason) == (file, "is a link, a folder or a pipe, expected a file")
    assert (Layout(ckps).quarantine / "1-net.pt").is_fifo()
    assert torch.load(file)["weight"][0, 0] == 2


def test_a_folder_among_the_objects_is_put_aside(ckps):
    (Layout(ckps).objects / "mine").mkdir()

    assert repair(ckps).lost == []

    assert (Layout(ckps).quarantine / "1-mine").is_dir()


@pytest.mark.parametrize("name", ["99.json", "3.json", "notes.json", "-0000001.json"])
def test_what_is_not_called_like_a_commit_hides_none(ckps, name):
    shutil.copy(newest(ckps), Layout(ckps).commits / name)

    assert PoolReader(ckps).read("last")["net"].epoch == 2
    assert readable_records(Layout(ckps))[0].number == 3


FORGERIES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "pool above": lambda c, _: c["pools"].update({"../../x": c["pools"]["last"]}),
    "absolute pool": lambda c, _: c["pools"].update({"/tmp/x": c["pools"]["last"]}),  # noqa: S108
    "module above": lambda c, d: c["pools"]["last"]["modules"].update({"../../x": d}),
    "absolute module": lambda c, d: c["pools"]["last"]["modules"].update({"/etc/x": d}),
    "digest above": lambda c, _: c["pools"]["last"]["modules"].update(net="../../x"),
    "absolute digest": lambda c, _: c["pools"]["last"]["modules"].update(net="/etc/passwd"),
    "digest that nothing uses": lambda c, d: c["objects"].update({"../../x": c["objects"][d]}),
    "parts above": lambda c, d: c["objects"][d].update(parts={"../x": d}),
    "state above": lambda c, _: c.update(state="../../x"),
    "other number": lambda c, _: c.update(number=77),
    "number below zero": lambda c, _: c.update(number=-5),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_record_that_names_what_is_elsewhere_is_a_damaged_one(ckps, outside, name):
    digest = readable_records(Layout(ckps))[0].pools["last"].modules["net"]
    path = newest(ckps)
    forge(path, lambda content: FORGERIES[name](content, digest))
    before = tree(outside)

    assert PoolReader(ckps).read("last")["net"].epoch == 1
    assert repair(ckps).commit == 2

    names = {".store", "frzn", "init", "last", "epoch_1", "epoch_2"}
    assert {file.name for file in ckps.iterdir()} == names
    assert tree(outside) == before
    assert sorted(file.name for file in ckps.parent.iterdir()) == ["ckps", "outside"]


@pytest.mark.parametrize("use", USES)
def test_a_store_of_a_newer_format_is_refused_and_left_as_it_is(ckps, use):
    path = newest(ckps)
    forge(path, lambda content: content.update(format=99))
    before = tree(ckps)

    with pytest.raises(CheckpointFileError) as caught:
        USES[use](ckps)

    assert str(caught.value) == (
        f"{path}: is a commit of store format 99, and this version reads formats up to 2\n"
        "  fix: pip install -U pymodules-core"
    )
    store = {str(ckps / ".store"): ()}  # where a writer's lock was
    assert tree(ckps) | store == before | store


def test_a_size_that_a_record_makes_up_takes_no_memory(ckps):
    digest = readable_records(Layout(ckps))[0].pools["last"].modules["net"]
    forge(newest(ckps), lambda content: content["objects"][digest].update(size_bytes=10**18))

    assert PoolReader(ckps).read("last")["net"].epoch == 1


def test_a_plain_file_that_is_a_link_out_of_its_folder_is_refused(tmp_path):
    folder = tmp_path / "ckps"
    (folder / "best").mkdir(parents=True)
    (folder / "init").mkdir()
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.pt")
    torch.save(nn.Linear(2, 2).state_dict(), folder / "init" / "net.pt")
    file = folder / "best" / "net.pt"
    file.symlink_to(tmp_path / "net.pt")

    with pytest.raises(CheckpointFileError) as caught:
        PoolReader(folder).read("best")

    assert str(caught.value) == (
        f"{file}: is a link that leads out of {folder}, to {tmp_path / 'net.pt'}\n"
        "  fix: put the file itself there"
    )
    file.unlink()
    file.symlink_to("../init/net.pt")
    assert list(PoolReader(folder).read("best")["net"].state) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (torch.eye(2).to_sparse(), "torch.sparse_coo tensor, and a checkpoint holds dense ones"),
        (torch.empty(2, device="meta"), "meta tensor, and a checkpoint holds dense ones"),
    ],
    ids=["sparse", "meta"],
)
def test_a_plain_file_of_tensors_that_no_module_is_saved_with_is_refused(tmp_path, value, what):
    (tmp_path / "best").mkdir()
    torch.save({"w": value}, tmp_path / "best" / "net.pt")

    with pytest.raises(CheckpointFileError) as caught:
        PoolReader(tmp_path).read("best")

    assert caught.value.what == f"w is a {what}"


def test_a_plain_file_that_claims_terabytes_is_refused(tmp_path):
    (tmp_path / "best").mkdir()
    torch.save({"w": torch.ones(1).expand(10**9, 10**3)}, tmp_path / "best" / "net.pt")

    with pytest.raises(CheckpointFileError) as caught:
        PoolReader(tmp_path).read("best")

    assert caught.value.what == (
        "claims 4,000,000,000,000 bytes in its tensors, far more than it has"
    )


def test_a_file_that_is_written_is_not_written_through_a_link(outside, tmp_path):
    (tmp_path / ".writing-run.json").symlink_to(outside / "precious.txt")

    write_file(tmp_path / "run.json", b"{}")

    assert (tmp_path / "run.json").read_bytes() == b"{}"
    assert (outside / "precious.txt").read_text() == "mine"


def test_a_commit_after_which_no_other_has_a_name_is_reported_and_nothing_vanishes(tmp_path):
    store = open_store(tmp_path)
    commit(store, 0, images(0))
    commit(store, 1, images(1))
    store.close()
    layout = Layout(tmp_path)
    newest = read_record(layout.record(2))
    layout.record(MOST_NUMBER).write_bytes(encode_record(attrs.evolve(newest, number=MOST_NUMBER)))
    before = sorted(path.name for path in layout.commits.iterdir())

    store = open_store(tmp_path)
    with pytest.raises(CheckpointError, match="is the last one that a name has room for"):
        commit(store, 2, images(2))
    store.close()

    assert sorted(path.name for path in layout.commits.iterdir())[-1:] == before[-1:]


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._net.pt", ".nfs000000000123", ".net.pt.Ab12Cd", ".directory"],
)
@pytest.mark.parametrize("place", ["last", ".store", ".store/objects", ".store/commits"])
def test_what_a_system_keeps_in_folders_is_not_damage(ckps, place, name):
    (ckps / place / name).write_text("Finder's, or of rsync")

    assert verify_store(Layout(ckps), digest_of_file).damages == []
    assert repair(ckps).lost == []
    assert (ckps / place / name).exists()
    assert not Layout(ckps).quarantine.exists()
    assert [*PoolReader(ckps).read("last")] == ["net"]
    resume(ckps)
