"""The programs of docs/own_loop.md run as they stand, warn of nothing and save what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import write_experiment
from torch import nn

PAGE = Path(__file__).parents[2] / "docs" / "own_loop.md"

# Section to its programs; the first is what stands above all sections.
PROGRAMS = {
    section.partition("\n")[0]: re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.M)
    for section in PAGE.read_text().removeprefix("# ").split("\n## ")
}


def run_program(source: str, folder: Path) -> str:
    """Run a program in a process of its own, and return what it prints."""
    folder.mkdir(exist_ok=True)
    script = folder / "loop.py"
    script.write_text(source)
    result = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        # Fabric takes every GPU it sees; one process is what the page describes.
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def epochs_of(printed: str) -> list[int]:
    return [int(line.split()[0]) for line in printed.splitlines()]


def open_pools(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return ``<pool>/<module_name>`` to the state dict in its file."""
    root = folder / "out" / "module_ckps"
    return {
        f"{file.parent.name}/{file.stem}": torch.load(file, weights_only=True)
        for file in sorted(root.glob("[!.]*/*.pt"))
    }


def test_every_section_is_one_program_and_is_run_here():
    assert {section: len(programs) for section, programs in PROGRAMS.items()} == {
        "Your own loop": 1,
        "Resuming a run": 1,
        "With Accelerate": 1,
        "With Lightning Fabric": 1,
        "The trainer from Python": 1,
    }


def test_the_own_loop_its_resume_and_the_trainer_run(tmp_path):
    write_experiment(tmp_path / "data", "mine")
    (loop,) = PROGRAMS["Your own loop"]
    (resuming,) = PROGRAMS["Resuming a run"]
    (trainer,) = PROGRAMS["The trainer from Python"]

    run_program(loop + resuming + trainer, tmp_path)

    assert sorted(p.name for p in (tmp_path / "out" / "module_ckps").iterdir()) == [
        ".store",
        "best",
        "epoch_1",
        "epoch_2",
        "epoch_3",
        "frzn",
        "init",
        "last",
    ]


@pytest.mark.parametrize(
    "section",
    ["With Accelerate", pytest.param("With Lightning Fabric", marks=pytest.mark.long)],
)
def test_a_librarys_loop_saves_plain_files_and_continues_to_the_weights_of_one_long_run(
    tmp_path, section
):
    (program,) = PROGRAMS[section]
    long_program = program.replace("EPOCHS = 2 ", "EPOCHS = 4 ")
    encoder, decoder = nn.Linear(4, 8).state_dict(), nn.Linear(8, 4).state_dict()

    first = run_program(program, tmp_path / "resumed")
    frozen = open_pools(tmp_path / "resumed")["frzn/decoder"]
    second = run_program(program, tmp_path / "resumed")
    whole = run_program(long_program, tmp_path / "whole")
    pools = open_pools(tmp_path / "resumed")
    wanted = open_pools(tmp_path / "whole")

    assert epochs_of(first) == [1, 2]
    assert epochs_of(second) == [3, 4]
    assert first + second == whole
    assert {name: list(state) for name, state in pools.items()} == {
        "frzn/decoder": list(decoder),
        **{
            f"{pool}/encoder": list(encoder)
            for pool in ("best", "epoch_1", "epoch_2", "epoch_3", "epoch_4", "init", "last")
        },
    }
    # Trained, through a frozen module that stays as it was; bit for bit what one run gives.
    assert not torch.equal(pools["last/encoder"]["weight"], pools["init/encoder"]["weight"])
    assert all(torch.equal(frozen[key], pools["frzn/decoder"][key]) for key in decoder)
    for name, state in pools.items():
        for key, value in state.items():
            assert torch.equal(value, wanted[name][key]), f"{name}: {key}"
