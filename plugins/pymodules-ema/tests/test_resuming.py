"""A run that continues has the average that it would have had."""

import json

import pytest
import torch

from pymodules_core import CheckpointManager, ModulePool, Trainer
from pymodules_core.errors import PymodulesError
from pymodules_core.testing import train_steps

SETTINGS = """
[checkpoints]
every_n_steps = 2
[optimizers.main]
accumulate = 2
[plugins.settings.ema]
modules = ["net"]
decay = 0.9
update_every_n_steps = 2
start_step = 2
"""

EMA = '[plugins.settings.ema]\nmodules = ["net"]\ndecay = 0.9\nwarmup = false\n'


def objects(experiment):
    """Return pool and module to the digest of their content, of the newest commit."""
    store = experiment / "data" / "module_ckps" / ".store" / "commits"
    newest = max(store.glob("*.json"), key=lambda file: int(file.stem.split("-")[-1]))
    pools = json.loads(newest.read_text())["pools"]
    return {(pool, name): d for pool, one in pools.items() for name, d in one["modules"].items()}


@pytest.mark.parametrize("step", [1, 4, 5, 8])
def test_a_run_that_crashes_continues_bit_for_bit(write, monkeypatch, step):
    whole = write("whole", settings=SETTINGS)
    Trainer(whole).fit()
    path = write("crashed", settings=SETTINGS)
    monkeypatch.setenv("CRASH_AT_STEP", str(step))
    with pytest.raises(PymodulesError, match="the power is gone"):
        Trainer(path).fit()
    monkeypatch.delenv("CRASH_AT_STEP")

    Trainer(path, existing="resume").fit()

    assert ("best", "net_ema") in objects(whole)
    assert ("epoch_2", "net_ema") in objects(whole)
    assert objects(path) == objects(whole)


def test_a_run_that_stops_before_the_first_update_begins_its_warm_up_then(write):
    settings = f"{SETTINGS.replace('every_n_steps = 2', 'every_n_steps = 1')}"
    whole, path = write("whole", settings=settings), write("stopped", settings=settings)
    train_steps(path, 1)  # in the middle of the first accumulation window

    train_steps(whole)
    train_steps(path)

    assert objects(path) == objects(whole)


def test_a_run_that_reached_its_limit_continues_with_the_warm_up_where_it_was(write, load):
    path = write(settings='[plugins.settings.ema]\nmodules = ["net"]')
    Trainer(path, overrides={"train.epochs": 2}).fit()
    before = load(path, "net_ema")

    Trainer(path, overrides={"train.epochs": 3}, existing="resume").fit()

    trail = torch.load(path / "data" / "trail.pt", weights_only=True)
    assert [step for step, _, _ in trail] == [7, 8, 9]
    expected = before["0.weight"]
    for step, _, state in trail:
        decay = step / (9 + step)
        expected = decay * expected + (1 - decay) * state["0.weight"]
    torch.testing.assert_close(load(path, "net_ema")["0.weight"], expected)


def test_an_average_that_is_added_starts_with_the_weights_of_the_moment(write, load):
    path = write()
    Trainer(path, overrides={"train.epochs": 2}).fit()
    before = load(path, "net")
    file = path / "experiment.toml"
    file.write_text(f"{file.read_text()}\n{EMA}")

    Trainer(path, overrides={"train.epochs": 3}, existing="resume", accept_changes=True).fit()

    trail = torch.load(path / "data" / "trail.pt", weights_only=True)
    assert len(trail) == 3
    expected = before["0.weight"]
    for _, _, state in trail:
        expected = 0.9 * expected + 0.1 * state["0.weight"]
    torch.testing.assert_close(load(path, "net_ema")["0.weight"], expected)


def test_a_commit_of_another_loop_does_not_restart_the_warm_up(write, load):
    path = write(settings='[plugins.settings.ema]\nmodules = ["net"]')
    Trainer(path, overrides={"train.epochs": 2}).fit()
    before = load(path, "net_ema")["0.weight"]
    with CheckpointManager(path / "data" / "module_ckps", ModulePool.discover(path)) as checkpoints:
        resumed = checkpoints.resume()
        checkpoints.commit("last", epoch=resumed.epoch, step=resumed.step)

    Trainer(path, overrides={"train.epochs": 3}, existing="resume").fit()

    trail = torch.load(path / "data" / "trail.pt", weights_only=True)
    expected = before
    for step, _, state in trail:
        expected = step / (9 + step) * expected + 9 / (9 + step) * state["0.weight"]
    torch.testing.assert_close(load(path, "net_ema")["0.weight"], expected)
