"""What README and docs show is true: code runs, files are valid, commands and links exist."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from support import write_experiment

from pymodules_core.cli.main import run
from pymodules_core.discovery.plugins.implementations import HOOK_NAMES
from pymodules_core.hookspecs import RunHooks
from pymodules_core.settings import ExperimentSettings, structure

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PLUGIN_PAGES = sorted((REPOSITORY / "plugins").glob("*/README.md"))


def anchors(page: Path) -> set[str]:
    """Return what links may name in a page: GitHub's names of its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language; the empty language is a bare fence."""
    found: list[str] = []
    lines: list[str] | None = None
    opened = ""
    for line in page.read_text().splitlines(keepends=True):
        if line.startswith("```"):
            if lines is None:
                lines, opened = [], line.strip("`\n")
            else:
                if opened == language:
                    found.append("".join(lines))
                lines = None
        elif lines is not None:
            lines.append(line)
    return found


def cases(language: str, pages=(*PAGES, *PLUGIN_PAGES)):
    return [
        pytest.param(block, id=f"{page.parent.name}/{page.name}-{number}")
        for page in pages
        for number, block in enumerate(blocks(page, language))
    ]


@pytest.mark.parametrize("source", cases("python"))
def test_every_python_block_compiles(source):
    # Blocks are parts of files; those that are whole are run by the tests below.
    assert ast.parse(source).body


@pytest.mark.parametrize("source", cases("toml"))
def test_every_toml_block_is_valid(source):
    data = tomllib.loads(source)

    if "project" not in data:
        structure(data, ExperimentSettings, root="")


@pytest.mark.parametrize("page", [*PAGES, *PLUGIN_PAGES], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


def test_the_readmes_experiment_is_what_new_writes_and_its_files_train(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    module, task, _ = blocks(REPOSITORY / "README.md", "python")
    tree = next(b for b in blocks(REPOSITORY / "README.md", "") if "my_distill/" in b)
    codes = [
        run(["new", "digits_classifier"]),
        run(["new", "my_distill", "--template", "distill"]),
        run(["train", "digits_classifier", "-s", "train.epochs=1"]),
    ]
    folder = tmp_path / "data" / "experiments" / "my_distill"
    written = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    original = (folder / "pymodules/task.py").read_text()
    split = original[original.index("def load_split") :]
    for number, phase in enumerate(("train", "eval")):
        task = task.replace(
            f"def {phase}_data(): ...\n",
            f"def {phase}_data():\n    return load_split()[{number}]\n",
        )
    imports = (
        "import torch\nfrom sklearn.datasets import load_digits\n"
        "from sklearn.model_selection import train_test_split\n"
        "from torch.utils.data import TensorDataset\n"
    )
    (folder / "pymodules/task.py").write_text(f"{imports}{task}\n\n{split}")
    (folder / "pymodules/modules/teacher_head.py").write_text(module)

    codes.append(run(["train", "my_distill", "-s", "train.epochs=1"]))

    assert codes == [0, 0, 0, 0], capsys.readouterr().err
    assert written == {line.split()[0] for line in tree.splitlines()[1:-1]}
    assert "teacher_head     frozen" in capsys.readouterr().out


def test_the_tutorials_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = [
        line.removeprefix("$ pymodules ").split()
        for block in blocks(REPOSITORY / "docs" / "tutorial.md", "console")
        for line in block.splitlines()
        if line.startswith("$ pymodules ")
    ]

    for command in commands:
        # One epoch each: that the examples learn is tested elsewhere.
        short = ["-s", "train.epochs=1"] if command[0] == "train" else []
        assert run([*command, *short]) == 0, capsys.readouterr().err

    assert len(commands) == 12
    assert (tmp_path / "data/experiments/digits_gan/data/samples.png").is_file()


def test_the_readmes_error_is_what_the_command_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module = blocks(REPOSITORY / "README.md", "python")[0]
    write_experiment(
        tmp_path / "data",
        "my_distill",
        modules={"teacher_head": module.replace('"frozen"', '"frozn"')},
    )

    code = run(["check", "my_distill"])

    shown = next(
        block for block in blocks(REPOSITORY / "README.md", "") if block.startswith("error: ")
    )
    assert code == 2
    assert capsys.readouterr().err == shown


def test_every_run_hook_is_on_the_authors_page_and_in_tasks():
    for page in ("writing_plugins.md", "tasks.md"):
        text = (REPOSITORY / "docs" / page).read_text()
        for name in HOOK_NAMES:
            if name in vars(RunHooks):
                assert f"`{name}(" in text
