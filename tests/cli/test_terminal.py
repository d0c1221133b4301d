"""Every command that prints a table, on real terminals from 20 to 200 columns."""

import re
from pathlib import Path

import pytest
from plugin_cases import PROVIDER
from support import TINY_MODULE, TINY_TASK, write_experiment
from table_cases import WIDTHS, assert_all_is_shown
from terminal_cases import Shown, show_in_pipe, show_on_terminal
from view_cases import FACTS, write_run

import pymodules_core
from pymodules_core import Trainer
from pymodules_core.testing import write_distribution
from pymodules_core.training.run_output.console import SilentPrinter

LONG = "experiment_of_a_name_that_has_sixty_letters_and_is_typed_whole"
WIDE = "実験.数字の分類器.教師の特徴を学ぶ"
LONG_MODULE = "teacher_encoder_of_a_name_that_has_sixty_letters_and_a_few_too"
WIDE_MODULE = "教師の特徴抽出器"
TASK = TINY_TASK.replace(
    'return {"loss": mse_loss(module_pool.net(inputs), targets)}',
    """loss = mse_loss(module_pool.net(inputs), targets)
    names = ["loss", "accuracy", "teacher_loss", "label_loss", "discriminator_accuracy"]
    return {name: loss * 10**number for number, name in enumerate(names)}""",
)
MODULES = {
    "net": TINY_MODULE,
    LONG_MODULE: TINY_MODULE.replace("4, 1", "64, 64"),
    WIDE_MODULE: "from torch import nn\nmodule = nn.BatchNorm2d(3)\nsettings = {'frozen': True}\n",
}
LARGE = 2**63 - 1
WITH_TABLES = [
    ["train", LONG, "--reset", "--yes"],
    ["status"],
    ["status", WIDE],
    ["list", LONG],
    ["list", LONG, "--build"],
    ["plugins"],
    ["compare", LONG, WIDE],
    ["compare", LONG, WIDE, "failed", "short"],
    ["ckpt", "ls", LONG],
    ["ckpt", "show", LONG, "best"],
    ["ckpt", "diff", LONG, "init", "best", "--all"],
    ["eval", LONG],
]
WITH_LINES = [
    ["ckpt", "lineage", "student"],
    ["ckpt", "verify", LONG],
    ["ckpt", "prune", LONG, "--keep-epochs", "1", "--dry-run"],
    ["ckpt", "ls", f"{LONG}_that_is_not_there"],
    ["check", LONG],
    ["train", LONG],
    ["train", "short", "--set", f"train.{'key_' * 30}=3"],
    ["compare", LONG],
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a data home and installed packages, of long and wide names."""
    folder = tmp_path_factory.mktemp("terminal")
    home = folder / "data"
    write_experiment(home, LONG, modules=MODULES, task=TASK)
    modules = [
        {**FACTS["modules"][0], "name": f"module_{number}", "parameters": LARGE - number}
        for number in range(40)
    ]
    best = {"metric": "discriminator_accuracy", "value": -1.234e-300, "epoch": LARGE}
    settings = {"train": {"note": "単語 " * 12, "seed": LARGE, "name": "x" * 39}}
    run_facts = {"modules": modules, "best": best, "settings": settings}
    write_run(home, WIDE, epoch=LARGE, epochs=LARGE, step=LARGE, **run_facts)
    write_run(home, "failed", error=f"{LONG} was not found\n  fix: write it", state="failed")
    write_run(home, "short")
    origin = {"exp_name": LONG, "ckp_pool_name": "best", "module_name": "net"}
    student = TINY_MODULE.replace("{}", repr({"load_weights_from_exp": origin}))
    write_experiment(home, "student", modules={"net": student})
    for name in (LONG, "student"):
        Trainer(home / "experiments" / name, reporter=SilentPrinter()).fit()
    site = {"folder": folder / "site", "version": "12.0.0.dev20261130+cu128"}
    encoders = "acme-encoders-of-a-package-that-has-a-long-name"
    provider = PROVIDER.replace('"acme"', repr(f"provided_{LONG_MODULE}"))
    write_distribution(name=encoders, source=provider, entry_point="of_many_kinds", **site)
    group = "pymodules.tasks"
    write_distribution(name="acme-tasks", source="", entry_point=LONG, group=group, **site)
    return folder


@pytest.fixture(scope="module")
def shown(place) -> list[Shown]:
    return show_on_terminal(
        [*WITH_TABLES, *WITH_LINES], widths=WIDTHS, place=place, PYTHONPATH=str(place / "site")
    )


@pytest.fixture(scope="module")
def piped(place) -> list[Shown]:
    return show_in_pipe([*WITH_TABLES, *WITH_LINES], place=place, PYTHONPATH=str(place / "site"))


def test_tables_lose_nothing_on_a_terminal_of_any_width(shown):
    tables = [(one.width, table) for one in shown for table in one.tables]

    for width, table in tables:
        # Columns are told apart by their blanks, so that a cell may have none of its own.
        rows = [[" ".join(cell.split()) for cell in row] for row in table.rows]
        assert_all_is_shown(table.lines, table.columns, rows, width=width)
    assert {one.code for one in shown if one.arguments in WITH_TABLES} == {0}


def test_all_commands_that_print_a_table_are_tried(shown):
    folder = Path(pymodules_core.__file__).parent / "cli"
    printing = {
        file.name
        for file in folder.rglob("*.py")
        if re.search(r"[^_]print_table\(", file.read_text())
    }

    assert {table.printed_by for one in shown for table in one.tables} == printing - {"output.py"}


def test_a_pipe_gets_each_row_on_one_line(piped):
    tables = [table for one in piped for table in one.tables]

    assert len(tables) >= len(WITH_TABLES)
    for table in tables:
        assert len(table.lines) == 1 + len(table.rows)
        for line, row in zip(table.lines, [table.columns, *table.rows], strict=True):
            assert line.split() == " ".join(row).split()


def test_messages_are_the_same_on_a_terminal_and_in_a_pipe(shown, piped):
    whole = {tuple(one.arguments): (one.code, one.text) for one in piped}
    lines = [one for one in shown if one.arguments in WITH_LINES]

    assert len(lines) == len(WITH_LINES) * len(WIDTHS)
    for one in lines:
        assert (one.code, one.text) == whole[tuple(one.arguments)]
