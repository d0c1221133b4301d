"""``pymodules new-plugin``: what it writes, and names it refuses. Real wheels: tests/packaging."""

from pathlib import Path

import pytest

from pymodules_core.cli.main import run

EXAMPLE = Path(__file__).parents[2] / "plugins" / "pymodules-example"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def texts(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


def test_it_writes_a_whole_package(capsys):
    assert run(["new-plugin", "acme-nets"]) == 0

    written = texts(Path("acme-nets"))
    assert sorted(written) == [
        ".github/workflows/test.yml",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "pyproject.toml",
        "src/acme_nets/__init__.py",
        "src/acme_nets/edges.py",
        "src/acme_nets/plugin.py",
        "src/acme_nets/py.typed",
        "tests/test_edges.py",
        "tests/test_plugin.py",
    ]
    assert 'acme_nets = "acme_nets.plugin"' in written["pyproject.toml"]
    assert 'name="acme_nets_edges"' in written["src/acme_nets/plugin.py"]
    output = capsys.readouterr().out.splitlines()
    assert output[0] == "wrote acme-nets"
    assert output[-1] == (
        "next: make test in acme-nets; then pip install -e acme-nets and pymodules plugins"
    )


def test_nothing_of_the_examples_name_is_left():
    run(["new-plugin", "acme-nets"])

    written = texts(Path("acme-nets"))
    assert written.pop("LICENSE") == (EXAMPLE / "LICENSE").read_text()
    for name, text in written.items():
        assert "example" not in text.lower(), name


def test_a_name_with_the_common_prefix_leaves_it_out_of_the_module():
    run(["new-plugin", "pymodules-sharp.er"])

    plugin = Path("pymodules-sharp.er/src/pymodules_sharp_er/plugin.py").read_text()
    assert 'name="sharp_er_edges"' in plugin
    project = Path("pymodules-sharp.er/pyproject.toml").read_text()
    assert 'sharp_er = "pymodules_sharp_er.plugin"' in project


def test_the_example_gives_itself():
    run(["new-plugin", "pymodules-example"])

    for name, text in texts(Path("pymodules-example")).items():
        assert text == (EXAMPLE / name).read_text()


def test_it_writes_into_a_folder():
    run(["new-plugin", "acme-nets", "--folder", "plugins"])

    assert Path("plugins/acme-nets/pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Acme_Nets",
            "'Acme_Nets' is not a name for a package\n  closest match: acme-nets\n"
            "  fix: write 'acme-nets'",
        ),
        ("../x", "'../x' is not a name for a package\n  closest match: x\n  fix: write 'x'"),
        (
            "9x",
            "'9x' is not a name for a package\n"
            "  fix: write lower-case words with hyphens: acme-encoders",
        ),
        (
            "json",
            "'json' would hide the package json\n"
            "  fix: write lower-case words with hyphens: acme-encoders",
        ),
        (
            "numpy",
            "'numpy' would hide the package numpy\n"
            "  fix: write lower-case words with hyphens: acme-encoders",
        ),
        (
            "class",
            "'class' is a word of Python's own\n"
            "  fix: write lower-case words with hyphens: acme-encoders",
        ),
    ],
)
def test_a_name_that_pip_or_python_cannot_take_is_refused(capsys, tmp_path, name, message):
    assert run(["new-plugin", name]) == 2

    assert capsys.readouterr().err == f"error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(capsys):
    Path("acme-nets").mkdir()

    assert run(["new-plugin", "acme-nets"]) == 2

    assert capsys.readouterr().err == (
        "error: acme-nets: there is a file or folder of that name\n"
        "  fix: choose another name, or --folder\n"
    )
    assert list(Path("acme-nets").iterdir()) == []
