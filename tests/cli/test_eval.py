"""``pymodules eval``, as it is typed."""

import json

import pytest
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core import CheckpointManager, Experiment, ModulePool, Trainer
from pymodules_core.cli.main import run
from pymodules_core.training.evaluation import evaluate as evaluate_pool
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.console import SilentPrinter

NORM = TINY_MODULE.replace("nn.Linear(4, 1)", "nn.BatchNorm1d(4)").replace("{}", '{"frozen": True}')
TASK = TINY_TASK.replace("module_pool.net(inputs)", "module_pool.net(module_pool.norm(inputs))")


@pytest.fixture
def trained(home, capsys):
    path = write_experiment(home, modules={"net": TINY_MODULE, "norm": NORM}, task=TASK)
    assert run(["train", "tiny", "-s", "train.seed=3"]) == 0
    capsys.readouterr()
    return path


EXECUTING = "executing task.py and 2 module files of data/experiments/tiny/pymodules"


def evaluate(capsys, *arguments):
    code = run(["eval", "tiny", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def times_of_files(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_every_pool_comes_to_what_the_run_recorded_of_it(trained, capsys):
    before = times_of_files(trained)

    found = {}
    for pool in ("init", "last", "best", "epoch_1", "epoch_2"):
        code, output, errors = evaluate(capsys, "--pool", pool, "--json")
        assert (code, errors) == (0, f"{EXECUTING}\n")
        found[pool] = json.loads(output)

    assert found["epoch_1"]["metrics"] == found["epoch_1"]["recorded"]
    assert found["last"]["metrics"] == found["last"]["recorded"] == found["epoch_2"]["metrics"]
    assert [one["epoch"] for one in found.values()] == [0, 2, 2, 1, 2]
    assert found["init"]["metrics"]["loss"] > found["best"]["metrics"]["loss"]
    assert {
        file: file.stat().st_mtime_ns for file in trained.rglob("*") if file.is_file()
    } == before


def test_a_person_gets_a_table(trained, capsys):
    code, output, _ = evaluate(capsys)

    assert code == 0
    executing, first, heading, row = output.splitlines()
    assert executing == EXECUTING
    assert first == "tiny, pool best of epoch 2"
    assert heading.split() == ["METRIC", "NOW", "RECORDED"]
    name, now, recorded = row.split()
    assert (name, now) == ("loss", recorded)


def test_a_pool_that_is_not_there_lists_those_that_are(trained, capsys):
    assert evaluate(capsys, "--pool", "epoch_3") == (
        2,
        "",
        "error: data/experiments/tiny/data/module_ckps: experiment 'tiny' has no pool 'epoch_3' to "
        "evaluate; there are: init, last, best, epoch_1, epoch_2\n"
        "  closest match: epoch_2\n  fix: write 'epoch_2'\n",
    )
    assert (
        "has no pool 'frzn' to evaluate; there are: init," in evaluate(capsys, "--pool", "frzn")[2]
    )
    assert "unknown checkpoint pool 'bets'" in evaluate(capsys, "--pool", "bets")[2]


def test_an_experiment_without_a_run_says_how_to_get_one(home, capsys):
    write_experiment(home)

    assert evaluate(capsys) == (
        2,
        "",
        "error: data/experiments/tiny/data/module_ckps: experiment 'tiny' has no checkpoints\n"
        "  fix: pymodules train tiny\n",
    )


def test_a_task_without_evaluation_is_named(home, capsys):
    task = TINY_TASK.replace("def eval_data", "def _unused").replace("def eval_step", "def _step")
    write_experiment(home, task=task)
    run(["train", "tiny"])
    capsys.readouterr()

    code, _, errors = evaluate(capsys, "--pool", "last")

    assert code == 2
    assert errors == (
        "error: data/experiments/tiny/pymodules/task.py: the task has no eval_data and eval_step\n"
        "  fix: write both\n"
    )


def test_a_reset_says_who_started_from_the_run(home, capsys):
    write_experiment(home)
    source = str(
        {
            "load_weights_from_exp": {
                "exp_name": "tiny",
                "ckp_pool_name": "best",
                "module_name": "net",
            }
        }
    )
    write_experiment(home, "child", modules={"net": TINY_MODULE.replace("{}", source)})
    assert [run(["train", "tiny"]), run(["train", "child"])] == [0, 0]
    capsys.readouterr()

    code = run(["train", "tiny", "--reset", "--yes"])

    assert code == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "weights of this run were the start of child/net; moved aside it stays on disk, and names "
        "lead to the new run"
    )


def test_run_state_is_there_and_objects_of_it_are_named(home, capsys):
    task = TINY_TASK.replace(
        "def eval_step(module_pool, batch):",
        'def eval_step(module_pool, batch, run):\n    run.log("known", run.state[KEY])',
    ) + (
        "\n\ndef run_started(run):\n"
        "    run.state['scale'] = 3.0\n"
        "    run.state['object'] = torch.nn.Linear(1, 1)\n"
    )
    path = write_experiment(home, task=task.replace("KEY", '"scale"'))
    assert run(["train", "tiny"]) == 0
    capsys.readouterr()

    assert json.loads(evaluate(capsys, "--json")[1])["metrics"]["known"] == 3.0
    (path / "pymodules/task.py").write_text(task.replace("KEY", '"object"'))
    code, _, errors = evaluate(capsys)

    assert code == 2
    assert "run.state['object'] is the saved state of an object that is not made yet" in errors


def test_weights_and_what_was_recorded_of_them_are_of_one_commit(trained, monkeypatch):
    experiment = Experiment.open("tiny")
    prepare = Session.prepare

    def train_meanwhile(*arguments, **more):
        session = prepare(*arguments, **more)
        monkeypatch.setattr(Session, "prepare", prepare)
        overrides = {"train.epochs": 4}
        Trainer("tiny", existing="resume", overrides=overrides, reporter=SilentPrinter()).fit()
        return session

    monkeypatch.setattr(Session, "prepare", train_meanwhile)

    found = evaluate_pool(experiment, "last")

    assert found.epoch == 4
    assert found.metrics == dict(found.recorded)


def test_a_run_of_a_loop_of_ones_own_is_evaluated_too(home, capsys):
    path = write_experiment(home)
    pool = ModulePool.discover(path)
    with CheckpointManager(path / "data/module_ckps", pool) as checkpoints:
        checkpoints.start()
        checkpoints.commit("last", epoch=1, state={"mine": 1})

    code, output, _ = evaluate(capsys, "--pool", "last", "--json")

    assert code == 0
    assert json.loads(output)["recorded"] == {}
