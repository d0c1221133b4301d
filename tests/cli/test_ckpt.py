"""``pymodules ckpt``: what each command says of pools that a run wrote."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import TINY_MODULE, write_experiment
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, PoolReader, read_state_dict
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import read_record, readable_records
from pymodules_core.cli.main import run
from pymodules_core.errors import CheckpointNotFoundError

CKPS = Path("data/experiments/tiny/data/module_ckps")
FROM_TINY = {"exp_name": "tiny", "ckp_pool_name": "epoch_1", "module_name": "net"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Two runs: ``tiny``, and ``second``, whose module starts from a pool of ``tiny``."""
    folder = tmp_path_factory.mktemp("trained")
    write_experiment(folder / "data")
    source = TINY_MODULE.replace("{}", str({"load_weights_from_exp": FROM_TINY}))
    write_experiment(folder / "data", "second", modules={"net": source})
    for name in ("tiny", "second"):
        assert run(["train", name, "--data-home", str(folder / "data")]) == 0
    return folder / "data"


@pytest.fixture
def runs(trained, home) -> Path:
    # With its hard links, which shutil.copytree would not keep.
    subprocess.run(["cp", "-a", trained, home], check=True)
    return home


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["ckpt", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)


def weights(pool: str) -> dict[str, torch.Tensor]:
    return read_state_dict(CKPS / pool / "net.pt")


def test_help_names_every_command(capsys):
    code, output, _ = call(capsys, "--help")

    assert code == 0
    for name in ("ls", "show", "diff", "lineage", "export", "verify", "repair", "prune"):
        assert f"\n  {name} " in output


def test_an_unknown_command_is_reported_with_the_closest(capsys):
    code, _, error = call(capsys, "vrify")

    assert code == 2
    assert "no command 'vrify'; there are: ls, show," in error
    assert "Did you mean 'verify'?" in error


def test_ls_reports_epochs_metrics_and_what_pools_share(runs, capsys):
    code, output, _ = call(capsys, "ls", "tiny")

    assert code == 0
    size = (CKPS / "last" / "net.pt").stat().st_size
    rows = [re.split("  +", line) for line in output.splitlines()]
    assert rows[0] == ["POOL", "EPOCH", "STEP", "METRICS", "MODULES", "SIZE", "SHARED"]
    assert [(row[0], row[1], row[2], row[4]) for row in rows[1:-1]] == [
        ("frzn", "0", "0", "0"),
        ("init", "0", "0", "1"),
        ("last", "2", "6", "1"),
        ("best", "2", "6", "1"),
        ("epoch_1", "1", "3", "1"),
        ("epoch_2", "2", "6", "1"),
    ]
    assert rows[3][3].startswith("loss 0.")
    one, shared = f"{size / 1000:.1f} kB", [row[6] for row in rows[2:-1]]
    assert shared == ["0 B", one, one, "0 B", one]
    link = readable_records(Layout(CKPS))[0].link
    assert link in {"reflink", "hard link", "copy"}
    record = readable_records(Layout(CKPS))[0]
    state = record.objects[record.state].size_bytes
    assert output.splitlines()[-1] == (
        f"commit 6: 6 pools of {5 * size / 1000:.1f} kB in {(3 * size + state) / 1000:.1f} kB on "
        f"disk ({link}), training state {state / 1000:.1f} kB"
    )


def test_ls_lists_orphans(runs, capsys):
    (runs / "experiments/tiny/pymodules/modules/net.py").rename(
        runs / "experiments/tiny/pymodules/modules/other.py"
    )

    _, output, _ = call(capsys, "ls", "tiny")

    assert output.splitlines()[-1] == "orphans, modules that tiny does not have now: net"
    _, as_json, _ = call(capsys, "ls", "tiny", "--json")
    assert json.loads(as_json)[2]["orphans"] == ["net"]


@pytest.mark.parametrize("command", ["ls", "lineage", "prune"])
def test_looking_at_records_imports_no_torch(runs, command):
    arguments = ["ckpt", command, "tiny", *(["--keep-epochs", "9"] if command == "prune" else [])]
    script = (
        "import sys; from pymodules_core.cli.main import run; "
        f"code = run({arguments}); print('torch' in sys.modules, code)"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines()[-1] == "False 0"


def test_a_folder_that_a_manager_wrote_needs_no_experiment(home, capsys):
    pool = ModulePool.from_modules({"net": nn.Linear(2, 1), "gone": nn.Linear(1, 1)})
    with CheckpointManager("out/ckps", pool) as checkpoints:
        checkpoints.start()

    code, output, _ = call(capsys, "ls", "out/ckps")
    assert code == 0
    assert output.splitlines()[-1].startswith("commit 1: 3 pools of ")
    assert call(capsys, "verify", "out/ckps") == (
        0,
        "out/ckps: 2 objects and 4 files are whole\n",
        "",
    )


def test_an_experiment_without_checkpoints_is_reported(home, capsys):
    write_experiment(home)

    assert call(capsys, "ls", "tiny") == (
        2,
        "",
        f"error: {CKPS}: experiment 'tiny' has no checkpoints yet\n  fix: pymodules train tiny\n",
    )


def test_show_reports_every_tensor(runs, capsys):
    code, output, _ = call(capsys, "show", "tiny", "best")

    assert code == 0
    lines = output.splitlines()
    assert re.fullmatch(r"net: 2 tensors, 5 elements, 20 B, epoch 2, digest [0-9a-f]{12}", lines[0])
    assert lines[1] == f"{CKPS}/best/net.pt"
    weight = weights("best")["weight"].double()
    assert re.split("  +", lines[3]) == [
        "weight",
        "1x4",
        "float32",
        "16 B",
        *(f"{number:.4g}" for number in (weight.mean(), weight.std(correction=0))),
        *(f"{number:.4g}" for number in (weight.min(), weight.max())),
    ]
    _, as_json, _ = call(capsys, "show", "tiny", "best", "net", "--json")
    assert [one["shape"] for one in json.loads(as_json)[0]["tensors"]] == [[1, 4], [1]]


def test_show_of_a_module_that_is_not_there_names_the_closest(runs, capsys):
    assert call(capsys, "show", "tiny", "best", "nat") == (
        2,
        "",
        f"error: {CKPS}/best: pool 'best' has no module 'nat'; it has: net\n"
        "  closest match: net\n  fix: write 'net'\n",
    )


def test_show_of_an_epoch_that_is_not_there_lists_the_pools(runs, capsys):
    assert call(capsys, "show", "tiny", "epoch_9") == (
        2,
        "",
        f"error: {CKPS}: there is no pool 'epoch_9'; there are: frzn, init, last, best, epoch_1, "
        "epoch_2\n  closest match: epoch_2\n  fix: write 'epoch_2'\n",
    )


def test_show_counts_what_is_not_finite(home, capsys):
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with CheckpointManager("out/ckps", ModulePool.from_modules({"net": module})) as checkpoints:
        checkpoints.start()

    _, output, _ = call(capsys, "show", "out/ckps", "last")

    assert output.splitlines()[-1] == "weight: 1 of 2 are NaN or infinite"


def test_diff_shows_how_far_weights_moved(runs, capsys):
    code, output, _ = call(capsys, "diff", "tiny", "init", "best")

    assert code == 0
    a, b = (torch.cat([v.flatten() for v in weights(p).values()]) for p in ("init", "best"))
    relative = ((b - a).norm() / a.norm()).item()
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=0).item()
    lines = [re.split("  +", line) for line in output.splitlines()]
    assert lines[1][0] == "net"
    assert float(lines[1][1]) == pytest.approx(relative, rel=1e-3)
    assert float(lines[1][2]) == pytest.approx(cosine, abs=1e-5)
    assert float(lines[1][3]) == pytest.approx((b - a).abs().max().item(), rel=1e-3)
    assert lines[1][4] == "2 of 2 tensors changed"
    assert [line.split()[0] for line in output.splitlines()[2:]] == ["weight", "bias"]


def test_diff_of_pools_that_are_the_same(runs, capsys):
    assert call(capsys, "diff", "tiny", "best", "epoch_2") == (0, "net: same\n", "")
    assert call(capsys, "diff", "tiny", "epoch_1", "init", "--other", "second") == (
        0,
        "net: same\n",
        "",
    )


def test_diff_reports_shapes_and_modules_that_one_pool_lacks(home, capsys):
    for folder, size, other in (("a", 2, "left"), ("b", 3, "right")):
        pool = ModulePool.from_modules({"net": nn.Linear(size, 1), other: nn.Linear(1, 1)})
        with CheckpointManager(f"out/{folder}", pool) as checkpoints:
            checkpoints.start()

    code, output, _ = call(capsys, "diff", "out/a", "last", "init", "--other", "out/b")

    lines = output.splitlines()
    assert code == 0
    assert lines[1].endswith("2 of 2 tensors changed")
    assert lines[2].split("  ")[-1] == "shape [1, 2] became [1, 3]"
    assert lines[-2:] == ["left: only in last", "right: only in init"]


def test_lineage_draws_experiment_pool_and_epoch(runs, capsys):
    code, output, _ = call(capsys, "lineage", "second")

    assert code == 0
    head, *rest = output.splitlines()
    assert re.fullmatch(
        r"second: commit 6 of \d{4}-\d\d-\d\d \d\d:\d\d UTC, epoch 2, .*torch 2\.13.*", head
    )
    assert re.sub("digest [0-9a-f]{12}", "digest …", "\n".join(rest)) == (
        "net\n└─ tiny/epoch_1/net, epoch 1, digest …\n   └─ as built"
    )


def test_lineage_says_when_the_source_is_gone(runs, capsys):
    assert run(["ckpt", "prune", "tiny", "epoch_1", "--even-if-needed"]) == 0

    _, output, _ = call(capsys, "lineage", "second")

    assert output.splitlines()[2].endswith(", which holds other weights now")


def test_export_writes_safetensors_and_merged_files(runs, capsys):
    code, output, _ = call(capsys, "export", "tiny", "best", "--to", "out")

    assert code == 0
    assert output == f"out/net.safetensors  {Path('out/net.safetensors').stat().st_size} B\n"
    torch.testing.assert_close(load_file("out/net.safetensors"), dict(weights("best")))

    call(capsys, "export", "tiny", "best", "net", "--to", "all.pt", "--merged")
    merged = torch.load("all.pt", weights_only=True)
    assert {key: value.tolist() for key, value in merged.items()} == {
        f"net.{key}": value.tolist() for key, value in weights("best").items()
    }
    assert call(capsys, "export", "tiny", "best", "--to", "all.pt", "--merged") == (
        2,
        "",
        "error: all.pt: is there already\n  fix: name another place, or add --replace\n",
    )
    assert call(capsys, "export", "tiny", "best", "--to", "out", "--merged", "--replace") == (
        2,
        "",
        "error: out: is a folder, and what is merged is one file\n"
        "  fix: name a file in it: --to out/modules.safetensors\n",
    )
    assert call(capsys, "export", "tiny", "init", "--to", f"{CKPS}/last", "--replace") == (
        2,
        "",
        f"error: {CKPS}/last: is where a run keeps its checkpoints\n  fix: --to another folder\n",
    )
    assert call(capsys, "export", "tiny", "init", "--to", "all.pt", "--merged", "--replace")[0] == 0
    torch.testing.assert_close(
        torch.load("all.pt", weights_only=True)["net.bias"], weights("init")["bias"]
    )


def test_verify_reads_files_of_any_kind(runs, capsys):
    run(["ckpt", "export", "tiny", "best", "--to", "out"])
    Path("broken.pt").write_bytes((CKPS / "best/net.pt").read_bytes()[:-30])

    code, output, error = call(capsys, "verify", "tiny", "out/net.safetensors", "broken.pt")

    assert code == 1
    assert output == ("tiny: 6 objects and 5 files are whole\nout/net.safetensors: whole, 2 keys\n")
    assert error.startswith("error: broken.pt: ")


def test_verify_names_what_is_damaged_and_repair_mends_it(runs, capsys):
    # A pool that shares its object with no other: a hard link damages both names.
    file = CKPS / "epoch_1/net.pt"
    object_ = next(o for o in (CKPS / ".store/objects").iterdir() if o.samefile(file))
    damage(object_)

    code, output, error = call(capsys, "verify", "tiny")
    assert (code, output) == (1, "")
    assert error == (
        f"damaged: {object_}: is damaged: its bytes are not those that were saved; "
        "it is part of epoch_1/net\n"
        "error: tiny: 1 of 6 objects and 5 files are damaged\n  fix: pymodules ckpt repair tiny\n"
    )

    code, output, error = call(capsys, "repair", "tiny")
    assert (code, output) == (1, "tiny: commit 7, 5 pools, is whole\n")
    assert error.splitlines()[0] == (
        f"warning: {object_} is damaged, or not as a run wrote it; "
        f"it is now {CKPS}/.store/quarantine/1-{object_.name}"
    )
    assert error.splitlines()[-1] == "lost: epoch_1/net"
    assert call(capsys, "verify", "tiny")[0] == 0
    assert call(capsys, "repair", "tiny")[0] == 0


def test_of_a_damaged_record_nothing_whole_is_called_damaged(runs, capsys):
    record = sorted((CKPS / ".store/commits").iterdir())[-1]
    newest, older = readable_records(Layout(CKPS))[:2]
    gone = sorted(newest.used_digests() - older.used_digests())
    damage(record)
    warning = f"warning: {record}: is a damaged commit record\n"

    code, _, error = call(capsys, "verify", "tiny")
    told = error.splitlines()
    assert code == 1
    assert f"damaged: {CKPS}/best/net.pt: is of a commit whose record is damaged" in told
    assert not any("edited" in line or "its bytes" in line for line in told)
    assert call(capsys, "ls", "tiny")[2].count(warning) == 1

    error = call(capsys, "repair", "tiny")[2]
    assert gone
    for digest in gone:
        path = CKPS / ".store/objects" / f"{digest}.pt"
        assert f"warning: {path} was of a commit that is put aside; it is now " in error
    assert error.count("is damaged, or not as a run wrote it") == 1
    assert call(capsys, "verify", "tiny")[0] == 0


def test_repair_puts_aside_an_older_commit_that_nobody_could_fall_back_to(runs, capsys):
    older, newest = (read_record(path) for path in sorted((CKPS / ".store/commits").iterdir())[-2:])
    assert older.state not in newest.used_digests()
    (CKPS / f".store/objects/{older.state}.pt").unlink()
    assert "it is part of the commit before" in call(capsys, "verify", "tiny")[2]

    code, output, error = call(capsys, "repair", "tiny")

    assert (code, output) == (0, "tiny: commit 6, 6 pools, is whole\n")
    assert f"warning: commit {older.number}, an older one, is not whole: put aside\n" in error
    assert (CKPS / f".store/quarantine/1-{older.number:08}.json").exists()
    assert call(capsys, "verify", "tiny")[0] == 0


def test_repair_makes_an_object_again_from_a_view(runs, capsys):
    # A copy, as a file system without links would have it.
    file = CKPS / "epoch_1/net.pt"
    object_ = next(o for o in (CKPS / ".store/objects").iterdir() if o.samefile(file))
    content, times = file.read_bytes(), file.stat().st_mtime_ns
    file.unlink()
    file.write_bytes(content)
    damage(object_)

    code, output, error = call(capsys, "repair", "tiny")

    assert (code, output) == (0, "tiny: commit 6, 6 pools, is whole\n")
    assert f"warning: {object_} was lost or damaged; made again from {file}\n" in error
    assert object_.read_bytes() == content
    assert object_.stat().st_mtime_ns == times
    assert call(capsys, "verify", "tiny")[0] == 0


def test_repair_takes_the_files_where_no_record_can_be_read(runs, capsys):
    before = weights("best")
    for record in (CKPS / ".store/commits").iterdir():
        damage(record)
    torn = CKPS / "init/net.pt"
    torn.chmod(0o644)
    torn.write_bytes(torn.read_bytes()[:-40])

    code, output, error = call(capsys, "repair", "tiny")

    assert (code, output) == (1, "tiny: commit 1, 4 pools, is whole\n")
    assert error.splitlines()[-1] == "lost: init/net"
    assert call(capsys, "verify", "tiny") == (0, "tiny: 2 objects and 4 files are whole\n", "")
    torch.testing.assert_close(dict(weights("best")), dict(before))
    quarantined = {path.name[2:] for path in (CKPS / ".store/quarantine").iterdir()}
    assert {"00000005.json", "00000006.json", "net.pt"} <= quarantined


def test_verify_and_repair_of_files_without_a_store(home, capsys):
    Path("plain/last").mkdir(parents=True)
    torch.save(nn.Linear(1, 1).state_dict(), "plain/last/net.pt")

    assert call(capsys, "verify", "./plain") == (0, "plain/last/net.pt: whole, 2 keys\n", "")
    code, output, error = call(capsys, "repair", "./plain")
    assert (code, output) == (0, "./plain: commit 1, 1 pool, is whole\n")
    assert "not as a run wrote it; it is now plain/.store/quarantine/1-net.pt" in error
    assert call(capsys, "verify", "./plain")[:2] == (0, "./plain: 1 object and 1 file are whole\n")


def test_prune_keeps_the_newest_and_says_what_goes(runs, capsys):
    size = (CKPS / "epoch_1/net.pt").stat().st_size
    arguments = ("prune", "tiny", "--keep-epochs", "1")

    assert call(capsys, *arguments) == (
        2,
        "",
        f"error: {CKPS}: pool 'epoch_1' gave the initial weights of second/net\n"
        "  fix: keep it, or drop it anyway with --even-if-needed\n",
    )
    dry = call(capsys, *arguments, "--even-if-needed", "--dry-run")
    assert dry == (0, f"tiny: would drop epoch_1, {size / 1000:.1f} kB on disk\n", "")
    assert (CKPS / "epoch_1").is_dir()

    done = call(capsys, *arguments, "--even-if-needed")

    assert done == (0, f"tiny: dropped epoch_1, {size / 1000:.1f} kB on disk\n", "")
    assert not (CKPS / "epoch_1").exists()
    # The weights of init and of all other pools, and the training state.
    assert len(list((CKPS / ".store/objects").iterdir())) == 3
    assert call(capsys, "verify", "tiny")[0] == 0
    assert call(capsys, *arguments)[1] == "tiny: nothing to drop\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Error: name the pools to drop, or --keep-epochs N\n"),
        (
            ("best",),
            "error: pool 'best' is not of an epoch, and a run needs it\n"
            "  fix: name pools of epochs: epoch_1, epoch_2\n",
        ),
        (
            ("epoch_7",),
            f"error: {CKPS}: there is no pool 'epoch_7'; there are: "
            "frzn, init, last, best, epoch_1, epoch_2\n"
            "  fix: pymodules ckpt ls shows what is there\n",
        ),
    ],
)
def test_prune_refuses(runs, capsys, arguments, message):
    code, _, error = call(capsys, "prune", "tiny", *arguments)

    assert code == 2
    assert error.endswith(message)


def test_prune_is_refused_while_a_run_writes(runs, capsys):
    with CheckpointManager("out/ckps", ModulePool.from_modules({"net": nn.Linear(1, 1)})) as ckps:
        ckps.start()
        ckps.commit("epoch_1", epoch=1)
        ckps.wait()

        code, _, error = call(capsys, "prune", "out/ckps", "epoch_1")

    assert code == 2
    assert error.startswith("error: out/ckps is being written by this process (")


def test_repair_of_a_strangers_folder_empties_no_other(runs, tmp_path, capsys):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("mine")
    stage = CKPS / ".store" / "stage"
    stage.rmdir()
    stage.symlink_to(outside)

    for command in (["repair"], ["verify"], ["show"], ["prune", "epoch_1"]):
        arguments = [command[0], "tiny", *(command[1:] or ["last"] * (command[0] == "show"))]
        code, output, error = call(capsys, *arguments)

        assert (code, output) == (2, "")
        assert error == (
            f"error: {stage}: is a link, and a store has a folder of its own there\n"
            "  fix: remove it, or put the folder itself there\n"
        )
    assert [file.read_text() for file in outside.iterdir()] == ["mine"]


@pytest.mark.parametrize("command", ["show", "diff", "export"])
def test_tensors_that_cannot_be_computed_with_are_one_error(home, capsys, command):
    for pool, value in (("init", torch.ones(2)), ("best", torch.eye(2).to_sparse())):
        folder = home / "pools" / pool
        folder.mkdir(parents=True)
        torch.save({"w": value}, folder / "net.pt")
    more = {"show": ["best"], "diff": ["init", "best"], "export": ["best", "--to", "out"]}

    code, output, error = call(capsys, command, "data/pools", *more[command])

    assert (code, output) == (2, "")
    assert error.splitlines()[0] == (
        "error: data/pools/best/net.pt: w is a torch.sparse_coo tensor, and a checkpoint holds "
        "dense ones"
    )
    assert not Path("out").exists()


def test_a_pool_without_modules_is_said_to_be_one(runs, capsys):
    assert call(capsys, "show", "tiny", "frzn") == (0, "tiny: pool frzn holds no module\n", "")
    assert call(capsys, "export", "tiny", "frzn", "--to", "out") == (
        0,
        "tiny: pool frzn holds no module, so nothing was written\n",
        "",
    )
    assert not Path("out").exists()


def test_names_in_a_file_do_nothing_to_the_terminal(home, capsys):
    folder = home / "pools" / "best"
    folder.mkdir(parents=True)
    torch.save({"\x1b[2Jw": torch.tensor([torch.nan]), "\x1b[2Jx": 1}, folder / "net.pt")

    code, output, _ = call(capsys, "show", "data/pools", "best")

    assert code == 0
    assert output.splitlines()[3].startswith("\\x1b[2Jw")
    assert output.splitlines()[4:] == [
        "\\x1b[2Jx: int, no tensor",
        "\\x1b[2Jw: 1 of 1 are NaN or infinite",
    ]


def test_verify_of_plain_files_reports_each_fault_and_reads_on(home, capsys, tmp_path):
    folder = home / "pools" / "best"
    folder.mkdir(parents=True)
    torch.save({"w": torch.ones(2)}, folder / "whole.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "outside.pt")
    (folder / "a.pt").write_bytes(b"")
    (folder / "b.pt").symlink_to("nothing.pt")
    (folder / "c.pt").symlink_to(tmp_path / "outside.pt")

    code, output, error = call(capsys, "verify", "data/pools")

    assert (code, output) == (1, "data/pools/best/whole.pt: whole, 1 key\n")
    assert [line for line in error.splitlines() if line.startswith("error: ")] == [
        "error: data/pools/best/a.pt: is not a checkpoint: it is empty",
        "error: data/pools/best/b.pt: is a link to nothing",
        "error: data/pools/best/c.pt: is a link that leads out of data/pools, to "
        f"{tmp_path / 'outside.pt'}",
    ]


def test_diff_of_complex_against_real_numbers_says_so(home, capsys):
    for pool, dtype in (("last", torch.complex64), ("best", torch.float32)):
        Path(f"plain/{pool}").mkdir(parents=True)
        torch.save({"w": torch.ones(3, dtype=dtype)}, f"plain/{pool}/net.pt")

    code, output, error = call(capsys, "diff", "./plain", "last", "best")

    assert (code, error) == (0, "")
    assert "complex64 became float32" in output


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ("last", "data: there is no pool 'last'; there are: none\n"),
        ("best", "data: there is no pool 'best'; there are: none\n"),
    ],
)
def test_a_reader_of_a_folder_without_that_pool_raises(home, pool, message):
    with pytest.raises(CheckpointNotFoundError) as caught:
        PoolReader(Path("data")).read(pool)

    assert str(caught.value).startswith(message)
