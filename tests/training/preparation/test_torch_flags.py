"""``task.py`` and module files own the process: flags of torch that they set stay and are kept."""

import json

import pytest
import torch
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core import ModulePool
from pymodules_core.checkpoints.tools.lineage import newest_record
from pymodules_core.cli.main import run
from pymodules_core.training.preparation.run_facts import provenance_of as provenance

DOUBLE = "import torch\ntorch.set_default_dtype(torch.float64)\n"
DETERMINISTIC = (
    "import torch\n"
    "torch.use_deterministic_algorithms(True, warn_only=True)\n"
    "torch.set_float32_matmul_precision('high')\n"
    "torch.backends.cudnn.benchmark = True\n"
)
CHECK = """

def {where}(module_pool, batch):
    inputs, targets = batch
    assert torch.are_deterministic_algorithms_enabled()
    assert module_pool.net.weight.dtype == inputs.dtype == torch.float64
"""


@pytest.fixture(autouse=True)
def flags():
    yield
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False


def files_of(path):
    return {
        file: (file.stat().st_mtime_ns, file.read_bytes())
        for file in (path / "data").rglob("*")
        if file.is_file()
    }


def checked(task):
    """Return a task whose steps look at what is set around them."""
    for step in ("train_step", "eval_step"):
        head = f"def {step}(module_pool, batch):\n    inputs, targets = batch\n"
        assert head in task
        task = task.replace(head, CHECK.format(where=step))
    return task


def write(home, task):
    return write_experiment(home, task=task, toml="[train]\nepochs = 1\nbatch_size = 20\n")


def fail_of(capsys, *arguments):
    assert run([*arguments]) == 2
    return capsys.readouterr().err


def test_a_run_trains_in_what_the_task_sets_and_says_so(home, caplog):
    path = write(home, DOUBLE + DETERMINISTIC + checked(TINY_TASK))
    codes = [run(["check", "tiny"]), run(["train", "tiny"]), run(["eval", "tiny"])]
    flags = json.loads((path / "data" / "run.json").read_text())["torch_flags"]

    assert codes == [0, 0, 0]
    assert not caplog.messages
    assert flags["default_dtype"] == "float64"
    assert flags["deterministic_algorithms"] == "warn"
    assert flags["float32_matmul_precision"] == "high"
    assert flags["cudnn.benchmark"] is True
    assert newest_record(path).provenance["torch_flags"] == flags


def test_what_a_module_file_sets_stays(home, caplog):
    path = write_experiment(home, modules={"net": DOUBLE + TINY_MODULE})
    pool = ModulePool.discover(path)

    assert pool.net.weight.dtype == torch.float64
    assert torch.get_default_dtype() is torch.float64
    assert not caplog.messages


def test_a_resume_with_other_flags_is_refused_and_writes_nothing(home, capsys):
    path = write(home, TINY_TASK)
    run(["train", "tiny"])
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = True
    before = files_of(path)
    error = fail_of(capsys, "train", "tiny", "--resume", "--set", "train.epochs=2")

    assert (
        "  torch flag cuda.matmul.allow_tf32: False -> True (set by "
        "torch.backends.cuda.matmul.allow_tf32: look for it in pymodules/task.py and the module "
        "files)\n"
    ) in error
    assert (
        "  torch flag deterministic_algorithms: 'off' -> 'on' (set by "
        "torch.use_deterministic_algorithms: look for it in"
    ) in error
    assert files_of(path) == before

    accepted = ["train", "tiny", "--resume", "--accept-changes", "--set", "train.epochs=2"]
    assert run(accepted) == 0


def test_a_run_that_began_before_flags_were_kept_is_resumed(home, monkeypatch):
    path = write(home, TINY_TASK)
    with monkeypatch.context() as before:
        before.setattr(
            "pymodules_core.training.trainer.provenance_of",
            lambda facts: {k: v for k, v in provenance(facts).items() if k != "torch_flags"},
        )
        run(["train", "tiny"])
    torch.use_deterministic_algorithms(True)

    assert "torch_flags" not in newest_record(path).provenance
    assert run(["train", "tiny", "--resume", "--set", "train.epochs=2"]) == 0
