"""Training by the trainer: ties, dropout, frozen models, and runs that continue bit for bit."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import transformers
from pymodules_transformers import build_model, save_folder

from pymodules_core import ModulePool, Trainer
from pymodules_core.errors import RunInterruptedError

TOML = """
[train]
epochs = 2
batch_size = 4
[plugins.settings.transformers.modules.lm]
model = "gpt2"
head = "causal-lm"
[plugins.settings.transformers.modules.lm.config]
n_layer = 2
n_head = 2
n_embd = 16
n_positions = 16
vocab_size = 128
bos_token_id = 0
eos_token_id = 0
"""
TEACHER = """
[plugins.settings.transformers.modules.teacher]
folder = "teacher_v1"
head = "causal-lm"
frozen = true
"""
# Real text: the licence that every Python brings.
TASK = """
import os
import signal
import site  # makes `license`
import builtins

import torch
from torch.optim import AdamW
from torch.utils.data import TensorDataset


def texts():
    builtins.license._Printer__setup()
    text = "\\n".join(builtins.license._Printer__lines).encode("ascii", "ignore")
    return torch.tensor(list(text[: 16 * 24])).reshape(24, 16)


def train_data():
    return TensorDataset(texts()[:18])


def eval_data():
    return TensorDataset(texts()[18:])


def optimizers(module_pool):
    return AdamW(module_pool.lm.parameters(), lr=1e-2)


def train_step(module_pool, batch):
    (tokens,) = batch
    return module_pool.lm(input_ids=tokens, labels=tokens).loss


def eval_step(module_pool, batch):
    (tokens,) = batch
    return {"loss": module_pool.lm(input_ids=tokens, labels=tokens).loss}


def train_step_finished(run):
    if run.step == int(os.environ.get("STOP_AFTER", 0)) and run.resumed_step is None:
        os.kill(os.getpid(), signal.SIGINT)
"""


def fit(path: Path, **arguments):
    return Trainer(path, **arguments).fit()


def weights(path: Path, pool: str, name: str = "lm") -> dict[str, torch.Tensor]:
    return torch.load(path / "data/module_ckps" / pool / f"{name}.pt", weights_only=True)


def metrics(path: Path) -> list[dict]:
    rows = map(json.loads, (path / "data/metrics.jsonl").read_text().splitlines())
    return [{key: row[key] for key in ("epoch", "step", "phase", "metrics")} for row in rows]


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.fixture
def whole(write_experiment) -> Path:
    """A run that nothing stopped."""
    path = write_experiment(TOML, task=TASK, name="whole")
    fit(path)
    return path


def test_it_learns_and_its_files_are_plain(whole):
    losses = [row["metrics"]["loss"] for row in metrics(whole) if row["phase"] == "eval"]
    saved = weights(whole, "last")

    assert losses[-1] < losses[0] - 0.5
    assert torch.equal(saved["lm_head.weight"], saved["transformer.wte.weight"])
    assert saved["lm_head.weight"].data_ptr() == saved["transformer.wte.weight"].data_ptr()


@pytest.mark.parametrize("step", [2, 5, 7])
def test_a_run_that_was_stopped_comes_to_the_same_end(whole, write_experiment, monkeypatch, step):
    path = write_experiment(TOML, task=TASK, name="stopped")
    monkeypatch.setenv("STOP_AFTER", str(step))

    with pytest.raises(RunInterruptedError):
        fit(path)
    assert weights(path, "last")["lm_head.weight"].shape == (128, 16)
    fit(path, existing="resume")

    for pool in ("init", "best", "last", "epoch_1", "epoch_2"):
        assert_equal(weights(path, pool), weights(whole, pool))
    assert metrics(path) == metrics(whole)


def test_ties_hold_after_a_resume(write_experiment):
    path = write_experiment(
        TOML,
        task=TASK
        + """
def run_finished(run):
    lm = run.module_pool.lm
    assert run.resumed_step is not None
    assert lm.lm_head.weight is lm.transformer.wte.weight
    (run.data_dir / "tied").touch()
""",
    )
    # The hook fails the first run after all is saved, and the second is what it is for.
    with pytest.raises(Exception, match="run_finished"):
        fit(path, overrides={"train.epochs": 1})

    fit(path, existing="resume", overrides={"train.epochs": 2})

    assert (path / "data" / "tied").is_file()


def test_dropout_works_in_train_loops_and_not_in_eval_loops(write_experiment):
    path = write_experiment(
        TOML,
        task=TASK.replace(
            "    return module_pool.lm(input_ids=tokens, labels=tokens).loss\n\n\ndef eval_step",
            "    first = module_pool.lm(input_ids=tokens, labels=tokens).loss\n"
            "    again = module_pool.lm(input_ids=tokens, labels=tokens).loss\n"
            '    return {"loss": first, "gap": (first - again).abs()}\n\n\ndef eval_step',
        ).replace(
            '    return {"loss": module_pool.lm(input_ids=tokens, labels=tokens).loss}',
            "    first = module_pool.lm(input_ids=tokens, labels=tokens).loss\n"
            "    again = module_pool.lm(input_ids=tokens, labels=tokens).loss\n"
            '    return {"loss": first, "gap": (first - again).abs()}',
        ),
    )

    fit(path)

    for row in metrics(path):
        assert (row["metrics"]["gap"] > 0) == (row["phase"] == "train")


def test_a_frozen_model_of_a_folder_stays_as_it_is(write_experiment, tmp_path, tiny):
    teacher = build_model("gpt2", head="causal-lm", **{**tiny["gpt2"], "vocab_size": 128})
    save_folder(teacher, tmp_path / "data/module_ckps/teacher_v1")
    task = TASK.replace(
        "    return module_pool.lm(input_ids=tokens, labels=tokens).loss\n\n\ndef eval_step",
        "    wanted = module_pool.teacher(input_ids=tokens).logits\n"
        "    assert not module_pool.teacher.training\n"
        "    return (module_pool.lm(input_ids=tokens).logits - wanted).square().mean()\n"
        "\n\ndef eval_step",
    )
    path = write_experiment(TOML + TEACHER, task=task)

    fit(path)

    assert_equal(weights(path, "frzn", "teacher"), teacher.state_dict())
    assert not (path / "data/module_ckps/last/teacher.pt").exists()


def test_a_checkpoint_becomes_a_folder_that_others_read(whole, tmp_path):
    pool = ModulePool.discover(whole)
    file = whole / "data/module_ckps/best/lm.pt"

    folder = save_folder(pool.lm, tmp_path / "out" / "lm", weights=file)

    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert_equal(theirs.state_dict(), weights(whole, "best"))
    tokens = torch.arange(10)[None]
    assert torch.equal(theirs(tokens).logits, pool.lm.eval()(tokens).logits)
    assert_equal(build_model(folder=folder, head="causal-lm").state_dict(), weights(whole, "best"))


def test_the_interrupt_of_these_tests_is_a_real_one():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "STOP_AFTER" not in os.environ
