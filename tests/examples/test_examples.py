"""The examples on real data: each trains, and really learns."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pymodules_core import ModulePool, Trainer, load_initial_weights
from pymodules_core.training.run_output.console import SilentPrinter

EXAMPLES = Path(__file__).parents[2] / "data" / "experiments"
SEEDS = range(5)


def copy_example(home: Path, example: str, name: str | None = None) -> Path:
    """Copy what a person writes of an example into a data home."""
    target = home / "experiments" / (name or example)
    shutil.copytree(
        EXAMPLES / example, target, ignore=shutil.ignore_patterns("data", "data.*", "__pycache__")
    )
    return target


def fit(path: Path, **overrides):
    return Trainer(path, overrides=overrides, reporter=SilentPrinter()).fit()


def states(path: Path, pool: str) -> dict[str, dict[str, torch.Tensor]]:
    folder = path / "data" / "module_ckps" / pool
    return {f.stem: torch.load(f, weights_only=True) for f in sorted(folder.glob("*.pt"))}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A data home with a trained classifier."""
    home = tmp_path_factory.mktemp("home")
    torch.set_num_threads(1)
    fit(copy_example(home, "digits_classifier"))
    return home


@pytest.mark.parametrize(
    "seeds", [SEEDS[:1], pytest.param(SEEDS[1:], marks=pytest.mark.long)], ids=["one", "more"]
)
def test_the_classifier_learns_with_every_seed(tmp_path, seeds):
    accuracies = []
    for seed in seeds:
        path = copy_example(tmp_path, "digits_classifier", f"seed_{seed}")
        accuracies.append(fit(path, **{"train.seed": seed}).best_value)

    assert min(accuracies) >= 0.97, accuracies


def test_frozen_teachers_are_the_classifiers_best_and_stay_so(home):
    path = copy_example(home, "digits_distill")
    pool = ModulePool.discover(path)
    load_initial_weights(pool)

    fit(path)

    classifier = states(home / "experiments" / "digits_classifier", "best")
    frozen = states(path, "frzn")
    assert sorted(frozen) == ["teacher_encoder", "teacher_head"]
    for name in ("encoder", "head"):
        assert_equal(frozen[f"teacher_{name}"], classifier[name])
        assert_equal(pool[f"teacher_{name}"].state_dict(), classifier[name])
    assert any("running_mean" in key for key in frozen["teacher_encoder"])
    assert sorted(states(path, "last")) == ["student"]


def test_frozen_teachers_in_memory_do_not_move(home):
    path = copy_example(home, "digits_distill", "in_memory")
    hook = (
        "\n\ndef run_finished(run):\n"
        "    import torch\n"
        "    for name in ('teacher_encoder', 'teacher_head'):\n"
        "        torch.save(run.module_pool[name].state_dict(), run.data_dir / f'{name}.after')\n"
    )
    task = path / "pymodules" / "task.py"
    task.write_text(task.read_text() + hook)

    fit(path, **{"train.epochs": 3})

    for name, state in states(path, "frzn").items():
        assert_equal(torch.load(path / "data" / f"{name}.after", weights_only=True), state)


@pytest.mark.long
def test_the_student_beats_the_same_student_without_the_teacher(home):
    taught, alone = [], []
    for seed in SEEDS:
        for accuracies, weight in ((taught, None), (alone, 0.0)):
            path = copy_example(home, "digits_distill", f"student_{seed}_{weight}")
            overrides = {"train.seed": seed}
            if weight is not None:
                overrides["task.teacher_weight"] = weight
            accuracies.append(fit(path, **overrides).metrics["accuracy"])

    # The last epoch, not the best one: no choice by the data that judges.
    assert sum(taught) / len(taught) > sum(alone) / len(alone) + 0.02, (taught, alone)
    assert all(t > a for t, a in zip(taught, alone, strict=True)), (taught, alone)


@pytest.mark.long
def test_the_gan_draws_digits_that_the_classifier_reads(home):
    path = copy_example(home, "digits_gan")

    result = fit(path)

    picture = Image.open(path / "data" / "samples.png").convert("L")
    rows, columns = 8, 10
    height, width = picture.height // rows, picture.width // columns
    cells = [
        picture.crop((c * width, r * height, (c + 1) * width, (r + 1) * height))
        for r in range(rows)
        for c in range(columns)
    ]
    # Each cell is an 8x8 image, enlarged, inside a border of one of its pixels.
    inner = [cell.resize((10, 10), Image.Resampling.BOX).crop((1, 1, 9, 9)) for cell in cells]
    images = torch.stack([torch.from_numpy(np.array(i)).unsqueeze(0) for i in inner]) / 255
    pool = ModulePool.discover(home / "experiments" / "digits_classifier")
    classifier = states(home / "experiments" / "digits_classifier", "best")
    for name, module in pool.items():
        module.load_state_dict(classifier[name])
    pool.set_training(training=False)
    with torch.no_grad():
        read = pool.head(pool.encoder(images)).argmax(dim=1)
    asked = torch.arange(columns).repeat(rows)
    assert (read == asked).float().mean() > 0.9
    assert result.best_value < 0.02
