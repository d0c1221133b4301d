"""Command lines that cannot be meant: one message, exit code 2, and nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import TINY_MODULE, write_experiment
from view_cases import write_run

from pymodules_core.cli.main import run

# Every command that takes an experiment, with the arguments it needs besides.
OF_EXPERIMENTS = (
    *("list", "plugins", "check", "train", "eval", "status", "plot"),
    *("compare tiny", "ckpt ls", "ckpt verify", "ckpt repair", "ckpt lineage"),
)
WITH_MORE = {
    "ckpt show": "best",
    "ckpt diff": "best last",
    "ckpt export": "best --to out",
    "ckpt prune": "epoch_1",
}
ALL = [*((command, "") for command in OF_EXPERIMENTS), *WITH_MORE.items()]
# Without capabilities of root, who may read what nobody may.
AS_USER = "setpriv --bounding-set=-dac_override,-dac_read_search "
AS_USER += "--inh-caps=-dac_override,-dac_read_search"


def files_of(folder: Path) -> list[tuple[Path, bytes]]:
    return sorted((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def start(command: str, *, before: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run a command line of a shell in which ``pymodules`` is the command."""
    script = f'pymodules() {{ {before} {sys.executable} -m pymodules_core "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture
def tiny(home) -> Path:
    """The experiment ``tiny`` with a run, which nothing here may change."""
    return write_run(home)


@pytest.mark.parametrize(("command", "more"), ALL)
def test_every_command_refuses_what_it_cannot_know(tiny, capsys, command, more):
    words, rest = command.split(), more.split()
    before = files_of(Path())

    codes = [
        run([*words, "tiny", *rest, "--nope"]),
        run([*words, "tinny", *rest]),
        run([*words, "no/such", *rest]),
        run([*words, str(tiny / "experiment.toml"), *rest]),
        run([*words, "../tiny", *rest]),
        run([*words, "a\\b", *rest]),
        run([*words, "", *rest]),
    ]

    error = capsys.readouterr().err
    assert codes == [2] * 7
    assert "Error: No such option '--nope'." in error
    assert "error: no experiment 'tinny' in data; there are: tiny\n  closest match: tiny\n" in error
    assert "error: no folder no/such\n" in error
    assert f"error: {tiny}/experiment.toml is not a folder\n" in error
    assert "error: no folder ../tiny\n" in error
    assert "error: experiment name 'a\\\\b' is not allowed: it holds a path separator\n" in error
    assert "error: experiment name '' is not allowed: it is empty\n" in error
    assert "Traceback" not in error
    assert files_of(Path()) == before


@pytest.mark.parametrize(
    "command", ["new", "new-plugin", "check", "train", "eval", "plot", "ckpt ls"]
)
def test_a_missing_argument_is_reported_with_the_usage(home, capsys, command):
    code = run(command.split())

    error = capsys.readouterr().err
    assert code == 2
    assert f"Usage: pymodules {command} " in error
    assert "Error: Missing argument" in error or "Error: name either an experiment" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train tiny --epochs x", "Invalid value for '--epochs': 'x' is not a valid integer."),
        ("train tiny --epochs 1.5", "Invalid value for '--epochs': '1.5' is not a valid integer."),
        (
            "train tiny --reset -y --epochs -1",
            "error: override train.epochs: expected int at least 0, found int -1\n",
        ),
        (
            "train tiny --reset -y --epochs 9223372036854775808",
            "error: override train.epochs: expected an int of 64 bits, found int "
            "9223372036854775808\n",
        ),
        (
            "train tiny --reset -y --device gpu",
            "error: override train.device: 'gpu' is not a device; there are: auto, cpu, cuda, "
            "cuda:<index>\n  closest match: cuda\n",
        ),
        (
            "train tiny --reset -y -s train.epochs",
            "error: override 'train.epochs' has no value\n  fix: write key=value: train.epochs=3\n",
        ),
        (
            "train tiny --reset -y -s train..epochs=3",
            "error: override 'train..epochs=3' lacks a part of its key\n",
        ),
        (
            "train tiny --reset -y -s train.epochs=three",
            "error: override train.epochs: expected int, found str 'three'\n",
        ),
        (
            "train tiny --reset -y -s task.begin=2024-01-01",
            "error: override task.begin: expected a text, number, bool, list or dict, found date",
        ),
        ("train tiny --nproc x", "Invalid value for '--nproc': 'x' is not a valid integer range."),
        ("train tiny --max-restarts -1", "Invalid value for '--max-restarts': -1 is not in"),
        ("train tiny --resume --reset", "--resume resumes the run, --reset moves it aside"),
        ("train tiny --accept-changes", "Error: --accept-changes belongs to --resume"),
        ("train tiny other", "Error: Got unexpected extra argument (other)"),
        ("train tiny -s", "Error: Option '-s' requires an argument."),
        ("list --build", "Error: --build belongs to an experiment: name one"),
        ("check tiny --plugin ema", "Error: name either an experiment, or a plugin with --plugin"),
        ("check --plugin=", "Error: name either an experiment, or a plugin with --plugin NAME"),
        ("plot tiny tiny", "error: experiment 'tiny' is named twice\n"),
        ("compare tiny data/experiments/tiny", "error: experiment 'tiny' is named twice\n"),
        ("ckpt prune tiny --keep-epochs -1", "Invalid value for '--keep-epochs': -1 is not in"),
        ("ckpt export tiny best", "Error: Missing option '--to'."),
        ("ckpt export tiny best --to o --format onnx", "'onnx' is not one of 'safetensors', 'pt'."),
        ("new x --template clasifier", "error: there is no template 'clasifier'; there are: class"),
        ("list --data-home file", "Error: Invalid value for '--data-home': Directory 'file' is a"),
        ("new-plugin acme --folder file", "Invalid value for '--folder': Directory 'file' is a"),
        ("status --data-home=", "Error: Invalid value for '--data-home': it is empty"),
        ("new-plugin acme --folder=", "Error: Invalid value for '--folder': it is empty"),
        ("plot tiny --output=", "Error: Invalid value for '-o' / '--output': it is empty"),
        ("ckpt export tiny best --to=", "Error: Invalid value for '--to': it is empty"),
    ],
)
def test_a_wrong_value_is_reported_with_what_it_should_be(tiny, capsys, arguments, message):
    Path("file").write_text("no folder")
    before = files_of(Path())

    code = run(arguments.split())

    assert code == 2
    assert message in capsys.readouterr().err
    assert files_of(Path()) == before


@pytest.mark.parametrize("command", ["new x", "list", "status", "plugins", "train tiny"])
def test_a_file_as_data_home_is_refused_by_every_command(home, capsys, monkeypatch, command):
    Path("file").write_text("no folder")
    monkeypatch.setenv("PYMODULES_DATA_HOME", "file")

    code = run(command.split())

    assert code == 2
    assert capsys.readouterr().err == (
        "error: data home file is not a folder\n"
        "  fix: name a folder: --data-home / PYMODULES_DATA_HOME\n"
    )


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Tiny", "is there, and some file systems hold 'Tiny' for the same name"),
        ("tiny", "there is a file or folder of that name"),
    ],
)
def test_new_refuses_a_name_that_some_file_system_holds_for_one_that_is_there(
    home, capsys, name, fault
):
    path = write_experiment(home)
    before = files_of(Path())

    code = run(["new", name])

    assert code == 2
    assert capsys.readouterr().err == (
        f"error: {path}: {fault}\n  fix: choose another name, or move that one away\n"
    )
    assert files_of(Path()) == before


def test_new_refuses_the_name_of_a_link_to_nothing(home, capsys):
    folder = write_experiment(home).parent
    (folder / "link").symlink_to("nowhere")

    code = run(["new", "link"])

    assert code == 2
    assert "error: data/experiments/link: there is a file or folder" in capsys.readouterr().err
    assert not (folder / "nowhere").exists()


def test_new_gives_commands_that_a_shell_takes(home, capsys):
    run(["new", "my run", "--data-home", "my data"])

    assert capsys.readouterr().out.endswith(
        "next: pymodules check 'my run' --data-home 'my data', then pymodules train 'my run' "
        "--data-home 'my data'\n"
    )


def test_a_torch_that_cannot_be_imported_is_reported_and_no_bug_is_reported(home, tmp_path):
    write_experiment(home)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libx.so: cannot open it')")

    result = start("pymodules check tiny", PYTHONPATH=str(tmp_path))

    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr == (
        b"error: torch cannot be imported: OSError: libx.so: cannot open it\n"
        b"  fix: install torch again, or take from PYTHONPATH what is called like it, or like what "
        b"it needs  (--debug shows every frame)\n"
    )


@pytest.mark.long
def test_closed_and_full_outputs_change_no_exit_code_of_an_error(home):
    write_experiment(home)

    closed = start("pymodules list tiny >&-; echo $? >&2; pymodules list nope >&- 2>&-; exit $?")
    full = start("pymodules list nope 2>/dev/full; echo $?; pymodules list tiny >/dev/full")

    assert (closed.stderr, closed.returncode) == (b"0\n", 2)
    assert full.stdout == b"2\n"
    assert full.returncode == 1
    assert full.stderr == (b"error: standard output: No space left on device\n  fix: make room\n")


@pytest.mark.long
def test_a_name_that_is_not_text_is_shown_and_opened(home):
    write_experiment(home, "y\udcff")

    result = start(
        "pymodules status; pymodules list data/experiments/y$'\\xff'; "
        "pymodules new q --data-home h$'\\xff'; pymodules list $'\\xff'",
        PYTHONIOENCODING="utf-8:strict",
    )

    assert b"\ny\\udcff " in result.stdout
    assert b"net     no " in result.stdout
    assert b"wrote h\\udcff/experiments/q\n" in result.stdout
    assert result.returncode == 2
    assert result.stderr.startswith(
        b"error: experiment name '\\udcff' is not allowed: it holds a control character\n"
    )


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is Linux's")
def test_what_may_not_be_read_is_named_and_hides_nothing_else(home):
    for name in ("file", "folder", "modules", "open"):
        write_experiment(home, name, modules={"net": TINY_MODULE})
    experiments = home / "experiments"
    locked = ("file/experiment.toml", "folder", "modules/pymodules/modules")
    for name in locked:
        (experiments / name).chmod(0)

    try:
        result = start(
            "for name in file folder modules; do pymodules list $name; echo $? >&2; done; "
            "pymodules status",
            before=AS_USER if os.geteuid() == 0 else "",
        )
    finally:
        for name in locked:
            (experiments / name).chmod(0o755)

    assert result.stderr.decode() == (
        "error: data/experiments/file/experiment.toml: cannot be read: Permission denied\n"
        "  fix: make it a readable file\n"
        "2\n"
        "error: data/experiments/folder cannot be read: Permission denied\n"
        "  fix: make it readable\n"
        "2\n"
        "error: data/experiments/modules/pymodules/modules: Permission denied\n"
        "  fix: make it readable and writable, or choose another folder\n"
        "1\n"
    )
    assert b"\nopen  " in result.stdout


def test_a_working_directory_that_is_gone_is_reported(home, capsys, monkeypatch):
    Path("gone").mkdir()
    monkeypatch.chdir("gone")
    Path("../gone").rmdir()

    code = run(["status"])

    assert code == 1
    assert capsys.readouterr().err == (
        "error: the working directory is gone\n  fix: go to another folder\n"
    )
