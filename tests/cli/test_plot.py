"""``pymodules plot`` as a user runs it."""

import re
import subprocess
import sys

import pytest
from support import write_experiment
from view_cases import write_run

from pymodules_core.cli.main import run
from pymodules_core.reports.page import is_page


def test_the_page_of_one_lies_in_its_data(home, capsys):
    path = write_run(home)

    code = run(["plot", "tiny"])

    page = path / "data" / "plot.html"
    assert code == 0
    size = f"{page.stat().st_size / 1000:.1f} kB"
    assert capsys.readouterr().out == f"wrote data/experiments/tiny/data/plot.html ({size})\n"
    assert is_page(page.read_bytes())
    assert list(page.parent.glob(".*")) == []


def test_the_page_of_several_lies_in_the_working_directory(home, capsys):
    write_run(home, "a")
    write_run(home, "b")

    code = run(["plot", "a", "b"])

    assert code == 0
    assert capsys.readouterr().out.startswith("wrote compare.html (")
    page = (home.parent / "compare.html").read_text()
    assert "<title>2 runs: a, b · pymodules</title>" in page


def test_the_file_can_be_named(home, capsys):
    path = write_run(home)

    code = run(["plot", "tiny", "-o", "mine.html"])

    assert code == 0
    assert capsys.readouterr().out.startswith("wrote mine.html (")
    assert is_page((home.parent / "mine.html").read_bytes())
    assert not (path / "data" / "plot.html").exists()


def test_a_page_is_replaced_by_the_next(home):
    path = write_run(home)
    run(["plot", "tiny"])
    log = path / "data" / "metrics.jsonl"
    log.write_text(log.read_text().replace("0.75", "0.8125"))

    code = run(["plot", "tiny"])

    assert code == 0
    assert "0.8125" in (path / "data" / "plot.html").read_text()


def test_a_file_that_is_not_a_page_is_not_replaced(home, capsys):
    path = write_run(home)
    config = path / "experiment.toml"
    before = config.read_bytes()

    code = run(["plot", "tiny", "-o", str(config)])

    assert code == 2
    assert capsys.readouterr().err == (
        "error: data/experiments/tiny/experiment.toml: exists and is not a page of pymodules plot\n"
        "  fix: choose another name: -o FILE\n"
    )
    assert config.read_bytes() == before


def test_a_folder_that_is_not_there_is_reported(home, capsys):
    write_run(home)

    code = run(["plot", "tiny", "-o", "nowhere/page.html"])

    assert code == 2
    assert capsys.readouterr().err == (
        "error: nowhere/page.html: cannot be written: No such file or directory\n"
        "  fix: choose another file in a folder that exists: -o FILE\n"
    )


def test_an_experiment_without_a_run_shows_how_to_get_one(home, capsys):
    path = write_experiment(home)

    code = run(["plot", "tiny"])

    assert code == 2
    assert capsys.readouterr().err == (
        "error: data/experiments/tiny/data: experiment 'tiny' has no run yet: there is no "
        "run.json\n"
        "  fix: pymodules train tiny\n"
    )
    assert not (path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plot"], "Missing argument 'EXP...'"),
        (["plot", "tiny", "-o", "."], "is a directory"),
    ],
)
def test_wrong_usage_exits_with_2(home, capsys, arguments, message):
    write_run(home)

    code = run(arguments)

    assert code == 2
    assert message in capsys.readouterr().err


def test_a_page_in_data_is_not_a_run(home):
    path = write_run(home)
    run(["plot", "tiny"])
    for name in ("run.json", "metrics.jsonl"):
        (path / "data" / name).unlink()

    assert run(["plot", "tiny"]) == 2
    assert run(["train", "tiny", "--epochs", "1"]) == 0


def test_plot_imports_no_torch(home):
    write_run(home, "a")
    write_run(home, "b")
    script = (
        "import sys; from pymodules_core.cli.main import run; "
        "code = run(['plot', 'a', 'b']); print('torch' in sys.modules, code)"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines()[-1] == "False 0"


def test_help_names_both_files(capsys):
    run(["plot", "--help"])

    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "data/plot.html of the experiment, or compare.html here for several" in text
