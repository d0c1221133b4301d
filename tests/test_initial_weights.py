"""``load_weights_from_ckp`` and ``load_weights_from_exp``: what they load, and what they refuse."""

import logging
from pathlib import Path

import pytest
import torch
from support import TINY_MODULE, write_experiment
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, load_initial_weights
from pymodules_core.errors import (
    CheckpointFileError,
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    WeightMismatchError,
)

MODULES = "data/experiments/tiny/pymodules/modules"
TOML = "data/experiments/tiny/experiment.toml"
FROM_CKP = {"ckp_name": "net.pt"}
FROM_EXP = {"exp_name": "source", "ckp_pool_name": "best", "module_name": "net"}
ASKED_CKP = f"  asked for by {MODULES}/net.py:5: settings.load_weights_from_ckp"


def source_of(**settings: object) -> str:
    return TINY_MODULE.replace("settings = {}", f"settings = {settings}")


def save(path: Path, state: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        torch.save(state, file)


def pool_of(home, toml: str = "", **modules: dict[str, object]) -> ModulePool:
    sources = {name: source_of(**settings) for name, settings in modules.items()}
    return ModulePool.discover(write_experiment(home, modules=sources, toml=toml))


def refusal(pool: ModulePool, error):
    before = {name: [p.clone() for p in module.parameters()] for name, module in pool.items()}
    pending = set(pool.pending_weights)
    with pytest.raises(error) as caught:
        load_initial_weights(pool)
    for name, module in pool.items():
        assert all(map(torch.equal, module.parameters(), before[name]))
    assert pool.pending_weights == pending
    return caught.value


@pytest.fixture
def linear() -> dict[str, torch.Tensor]:
    return nn.Linear(4, 1).state_dict()


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"load_weights_from_ckp": FROM_CKP}, "module_ckps/net.pt"),
        ({"load_weights_from_exp": FROM_EXP}, "experiments/source/data/module_ckps/best/net.pt"),
    ],
    ids=["ckp", "exp"],
)
def test_weights_are_loaded_bit_for_bit(home, caplog, linear, settings, path):
    save(home / path, linear)
    pool = pool_of(home, net=settings, other={})
    assert pool.pending_weights == {"net"}

    with caplog.at_level(logging.INFO, logger="pymodules_core"):
        (report,) = load_initial_weights(pool)

    assert all(torch.equal(value, linear[key]) for key, value in pool.net.state_dict().items())
    assert (report.module_name, report.source) == ("net", (home / path).absolute())
    assert (report.loaded, report.coverage) == (("weight", "bias"), 100)
    assert pool.pending_weights == set()
    assert caplog.messages == [f"weights of net: 2 tensors loaded, 100%, from data/{path}"]


def test_rename_strict_and_skip_mismatched_are_heeded_and_reported(home, linear):
    save(home / "module_ckps/net.pt", {"old.weight": linear["weight"], "bias": torch.ones(3)})
    options = {"rename": {"old.": ""}, "skip_mismatched": True}
    pool = pool_of(home, net={"load_weights_from_ckp": FROM_CKP | options})
    bias = pool.net.bias.detach().clone()

    (report,) = load_initial_weights(pool)

    assert torch.equal(pool.net.weight, linear["weight"])
    assert torch.equal(pool.net.bias, bias)
    assert report.renamed == {"old.weight": "weight"}
    assert report.mismatched == {"bias": ((3,), (1,))}
    assert str(report) == "net: 1 tensors loaded, 80%, 1 mismatched, 1 renamed"


def test_without_strict_missing_and_unexpected_keys_are_reported(home, linear):
    save(home / "module_ckps/net.pt", {"bias": linear["bias"], "scale": torch.ones(1)})
    pool = pool_of(home, net={"load_weights_from_ckp": FROM_CKP | {"strict": False}})

    (report,) = load_initial_weights(pool)

    assert (report.missing, report.unexpected) == (("weight",), ("scale",))
    assert report.coverage == 20


def test_weights_that_do_not_fit_name_the_file_and_the_setting(home):
    save(home / "module_ckps/net.pt", {"weight": torch.ones(2, 4), "bias": torch.ones(1)})
    pool = pool_of(home, net={"load_weights_from_ckp": FROM_CKP})

    error = refusal(pool, WeightMismatchError)

    assert str(error) == (
        "data/module_ckps/net.pt: weights do not fit module 'net':\n"
        "  weight: shape [2, 4] in the file, [1, 4] in the module\n"
        f"{ASKED_CKP}\n"
        "  fix: skip_mismatched = True for shapes"
    )
    assert error.key == "settings.load_weights_from_ckp"


def test_a_damaged_file_names_the_file_and_the_setting(home):
    (home / "module_ckps").mkdir(parents=True)
    (home / "module_ckps/net.pt").touch()
    pool = pool_of(home, net={"load_weights_from_ckp": FROM_CKP})

    assert str(refusal(pool, CheckpointFileError)) == (
        f"data/module_ckps/net.pt: is not a checkpoint: it is empty\n{ASKED_CKP}\n"
        "  fix: download or copy it again, or take another file"
    )


def test_a_missing_file_is_reported_with_the_closest(home, linear):
    save(home / "module_ckps/nets.pt", linear)
    pool = pool_of(home, net={"load_weights_from_ckp": FROM_CKP})

    assert str(refusal(pool, CheckpointNotFoundError)) == (
        "data/module_ckps/net.pt: there is no such checkpoint; data/module_ckps holds: nets.pt\n"
        f"{ASKED_CKP}\n"
        "  closest match: nets.pt\n"
        "  fix: write 'nets.pt'"
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"exp_name": "sorce"},
            ExperimentNotFoundError,
            "exp_name: there is no experiment 'sorce' in data; there are: bare, source, tiny\n"
            "  closest match: source\n  fix: write 'source'",
        ),
        (
            {"ckp_pool_name": "epoch_12"},
            CheckpointNotFoundError,
            "ckp_pool_name: experiment 'source' has no pool 'epoch_12'; there are: best, epoch_2\n"
            "  closest match: epoch_2\n  fix: write 'epoch_2'",
        ),
        (
            {"module_name": "nett"},
            CheckpointNotFoundError,
            "module_name: pool source/best has no module 'nett'; there are: net\n"
            "  closest match: net\n  fix: write 'net'",
        ),
        (
            {"exp_name": "bare"},
            CheckpointNotFoundError,
            "ckp_pool_name: experiment 'bare' has no pool 'best'; there are: none\n"
            "  fix: pymodules train bare",
        ),
    ],
    ids=["experiment", "pool", "module", "no pools"],
)
def test_what_another_experiment_lacks_is_reported_with_what_it_has(
    home, linear, change, error, message
):
    write_experiment(home, "bare")
    source = write_experiment(home, "source")
    for name in ("epoch_2", "best"):
        save(source / f"data/module_ckps/{name}/net.pt", linear)
    pool = pool_of(home, net={"load_weights_from_exp": FROM_EXP | change})

    caught = refusal(pool, error)

    assert str(caught) == f"{MODULES}/net.py:5: settings.load_weights_from_exp.{message}"


def test_an_override_in_experiment_toml_is_named_with_its_line(home, linear):
    save(home / "module_ckps/other.pt", linear)
    pool = pool_of(
        home,
        '[train]\nepochs = 1\n\n[modules.settings.net.load_weights_from_ckp]\nckp_name = "x.pt"\n',
        net={"load_weights_from_ckp": FROM_CKP},
    )

    error = refusal(pool, CheckpointNotFoundError)

    assert str(error) == (
        "data/module_ckps/x.pt: there is no such checkpoint; data/module_ckps holds: other.pt\n"
        f"  asked for by {TOML}:4: modules.settings.net.load_weights_from_ckp\n"
        "  fix: put x.pt there, or name one that is"
    )
    assert error.key == "modules.settings.net.load_weights_from_ckp"


def test_a_line_of_an_override_in_experiment_toml_is_the_keys_own(home):
    pool = pool_of(
        home,
        "[modules.settings.net.load_weights_from_exp]\nckp_pool_name = 'best'\n"
        "exp_name = 'gone'\nmodule_name = 'net'\n",
        net={},
    )

    assert str(refusal(pool, ExperimentNotFoundError)) == (
        f"{TOML}:3: modules.settings.net.load_weights_from_exp.exp_name: there is no experiment "
        "'gone' in data; there are: tiny\n"
        "  fix: train it first: pymodules new gone, pymodules train gone"
    )


def test_a_load_that_leaves_something_out_is_a_warning(home, caplog, linear):
    save(home / "module_ckps/net.pt", {"weight": linear["weight"], "old": torch.zeros(2)})
    pool = pool_of(home, net={"load_weights_from_ckp": {**FROM_CKP, "strict": False}})

    load_initial_weights(pool)

    assert caplog.messages == [
        "weights of net: 1 tensors loaded, 80%, 1 missing, 1 unexpected, from "
        "data/module_ckps/net.pt"
    ]


def test_an_experiment_in_the_middle_of_a_commit_is_read_as_it_was_committed(home):
    folder = write_experiment(home, "source") / "data" / "module_ckps"
    source = ModulePool.from_modules({"net": nn.Linear(4, 1)})
    with CheckpointManager(folder, source, link="copy") as checkpoints:
        checkpoints.start()
        checkpoints.commit("last", "epoch_1", epoch=1)
    # What a commit has done by then: some of its objects and views, and no record.
    save(folder / ".store" / "stage" / "last" / "net.pt", {"weight": torch.zeros(1, 4)})
    (folder / "epoch_1" / "net.pt").chmod(0o644)
    save(folder / "epoch_1" / "net.pt", {"weight": torch.zeros(1, 4), "bias": torch.zeros(1)})
    table = {"exp_name": "source", "ckp_pool_name": "epoch_1", "module_name": "net"}
    pool = pool_of(home, net={"load_weights_from_exp": table})

    load_initial_weights(pool)

    assert torch.equal(pool.net.weight, source.net.weight)
    assert pool.weights_origins["net"].epoch == 1
