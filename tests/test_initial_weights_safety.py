"""Initial weights: from within the data home only, never in circles, and all or none."""

from pathlib import Path

import pytest
import torch
from support import TINY_MODULE, start_command, write_experiment
from torch import nn

from pymodules_core import ModulePool, load_initial_weights
from pymodules_core.errors import (
    CheckpointError,
    InvalidNameError,
    PymodulesError,
    SettingsError,
    WeightMismatchError,
)

FILE = "data/experiments/tiny/pymodules/modules/net.py"
TOML = "data/experiments/tiny/experiment.toml"
WAY_OUT = "copy the file to module_ckps/ of the data home and use load_weights_from_ckp"
OWN_HOOK = """
from torch import nn


class Picky(nn.Linear):
    def get_extra_state(self):
        return 1

    def set_extra_state(self, state):
        if state != 1:
            raise ValueError(f"cannot take {state}")


module = Picky(4, 1)
settings = {"load_weights_from_ckp": {"ckp_name": "picky.pt"}}
"""


def source_of(**settings: object) -> str:
    return TINY_MODULE.replace("settings = {}", f"settings = {settings}")


def from_exp(name: str) -> dict[str, object]:
    table = {"exp_name": name, "ckp_pool_name": "best", "module_name": "net"}
    return {"load_weights_from_exp": table}


def from_ckp(name: str) -> dict[str, object]:
    return {"load_weights_from_ckp": {"ckp_name": name}}


def save(path: Path, state: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        torch.save(state, file)


def write(home: Path, name: str = "tiny", toml: str = "", **modules: object) -> Path:
    sources = {k: v if isinstance(v, str) else source_of(**v) for k, v in modules.items()}
    return write_experiment(home, name, modules=sources, toml=toml)


def refusal(pool: ModulePool, error) -> PymodulesError:
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


def test_an_experiment_that_loads_from_itself_is_refused(home):
    pool = ModulePool.discover(write(home, net=from_exp("tiny")))

    error = refusal(pool, SettingsError)

    assert str(error) == (
        f"{FILE}:5: settings.load_weights_from_exp.exp_name: experiment 'tiny' takes its initial "
        f"weights from itself: tiny -> tiny\n  fix: {WAY_OUT}"
    )
    assert error.found == "tiny -> tiny"


def test_a_circle_of_experiments_is_printed(home):
    write(home, "a", net=from_exp("b"), other={})
    write(home, "b", net=from_exp("tiny"))
    pool = ModulePool.discover(write(home, net=from_exp("a")))

    error = refusal(pool, SettingsError)

    assert error.found == "tiny -> a -> b -> tiny"
    assert str(error).startswith(f"{FILE}:5: settings.load_weights_from_exp.exp_name: experiment")


def test_a_circle_through_experiment_toml_is_printed(home):
    toml = (
        "[modules.settings.net.load_weights_from_exp]\n"
        "exp_name = '{}'\nckp_pool_name = 'best'\nmodule_name = 'net'\n"
    )
    write(home, "a", toml.format("tiny"), net={})
    pool = ModulePool.discover(write(home, toml=toml.format("a"), net={}))

    error = refusal(pool, SettingsError)

    assert str(error) == (
        f"{TOML}:2: modules.settings.net.load_weights_from_exp.exp_name: experiment 'tiny' takes "
        f"its initial weights from itself: tiny -> a -> tiny\n  fix: {WAY_OUT}"
    )


def test_a_source_that_experiment_toml_replaces_closes_no_circle(home, linear):
    toml = "[modules.settings.net.load_weights_from_ckp]\nckp_name = 'net.pt'\n"
    source = write(home, "a", toml, net=from_exp("tiny"))
    save(source / "data/module_ckps/best/net.pt", linear)
    pool = ModulePool.discover(write(home, net=from_exp("a")))

    load_initial_weights(pool)

    assert torch.equal(pool.net.weight, linear["weight"])


def test_a_circle_among_others_ends_the_search(home, linear):
    write(home, "b", net=from_exp("a"))
    source = write(home, "a", net=from_exp("b"), evil=from_exp("../a"))
    save(source / "data/module_ckps/best/net.pt", linear)
    pool = ModulePool.discover(write(home, net=from_exp("a")))

    load_initial_weights(pool)

    assert torch.equal(pool.net.weight, linear["weight"])


@pytest.mark.parametrize(
    ("settings", "link", "key"),
    [
        (from_ckp("x.pt"), "module_ckps/x.pt", "ckp.ckp_name"),
        (
            from_exp("a"),
            "experiments/a/data/module_ckps/best",
            "exp.ckp_pool_name",
        ),
        (
            from_exp("a"),
            "experiments/a/data/module_ckps/best/net.pt",
            "exp.module_name",
        ),
    ],
    ids=["file", "pool", "module"],
)
def test_a_link_out_of_the_data_home_is_refused(home, tmp_path, linear, settings, link, key):
    outside = tmp_path / "outside"
    save(outside / "net.pt", linear)
    write(home, "a", net={})
    path = home / link
    path.parent.mkdir(parents=True, exist_ok=True)
    target = outside if path.name == "best" else outside / "net.pt"
    path.symlink_to(target)
    pool = ModulePool.discover(write(home, net=settings))

    error = refusal(pool, InvalidNameError)

    assert str(error) == (
        f"{FILE}:5: settings.load_weights_from_{key}: data/{link} leads out of the data home, to "
        f"{target}\n  fix: copy it below data instead of linking to it"
    )


def test_a_link_to_another_pool_of_the_data_home_is_followed(home, linear):
    source = write(home, "a", net={})
    save(source / "data/module_ckps/epoch_3/net.pt", linear)
    (source / "data/module_ckps/best").mkdir()
    (source / "data/module_ckps/best/net.pt").symlink_to("../epoch_3/net.pt")
    pool = ModulePool.discover(write(home, net=from_exp("a")))

    load_initial_weights(pool)

    assert torch.equal(pool.net.weight, linear["weight"])


def test_an_experiment_that_a_link_leads_to_outside_is_refused(home, tmp_path):
    outside = write(tmp_path / "outside", "a", net={})
    pool = ModulePool.discover(write(home, net=from_exp("a")))
    (home / "experiments/a").symlink_to(outside)

    error = refusal(pool, InvalidNameError)

    assert str(error) == (
        f"{FILE}:5: settings.load_weights_from_exp.exp_name: data/experiments/a leads out of the "
        f"data home, to {outside}\n  fix: copy it below data instead of linking to it"
    )


def test_a_data_home_that_is_a_link_itself_is_not_a_fault(home, tmp_path, linear):
    (tmp_path / "disk").mkdir()
    home.symlink_to("disk")
    save(home / "module_ckps/x.pt", linear)
    pool = ModulePool.discover(write(home, net=from_ckp("x.pt")))

    load_initial_weights(pool)

    assert torch.equal(pool.net.weight, linear["weight"])


@pytest.mark.parametrize(
    ("settings", "name"),
    [(from_ckp("../x.pt"), "ckp_name"), (from_exp("../x"), "exp_name")],
    ids=["ckp", "exp"],
)
def test_a_program_cannot_name_files_elsewhere_either(settings, name):
    with pytest.raises(InvalidNameError) as caught:
        ModulePool.from_modules({"net": nn.Linear(1, 1)}, settings={"net": settings})

    assert caught.value.key == f"settings.{next(iter(settings))}.{name}"


def test_a_second_module_that_does_not_fit_leaves_the_first_as_it_was(home, linear):
    save(home / "module_ckps/x.pt", linear)
    save(home / "module_ckps/y.pt", {"weight": torch.ones(1, 4)})
    pool = ModulePool.discover(write(home, first=from_ckp("x.pt"), second=from_ckp("y.pt")))

    error = refusal(pool, WeightMismatchError)

    assert error.found.module_name == "second"


def test_a_second_module_whose_own_hook_raises_leaves_the_first_as_it_was(home, linear):
    save(home / "module_ckps/x.pt", linear)
    save(home / "module_ckps/picky.pt", linear | {"_extra_state": 2})
    pool = ModulePool.discover(write(home, first=from_ckp("x.pt"), second=OWN_HOOK))

    error = refusal(pool, CheckpointError)

    assert str(error) == (
        "data/module_ckps/picky.pt: loading into module 'second' raises ValueError: cannot take 2\n"
        f"  asked for by {FILE.replace('net', 'second')}:15: settings.load_weights_from_ckp\n"
        "  fix: let the module's set_extra_state and load_state_dict hooks accept the file; no "
        "module was changed"
    )


def test_a_setting_of_a_program_is_reported_with_its_module(home, tmp_path):
    pool = ModulePool.from_modules(
        {"net": nn.Linear(1, 1)}, settings={"net": from_exp("gone")}, data_home=home
    )

    error = refusal(pool, PymodulesError)

    assert str(error) == (
        "module 'net', settings.load_weights_from_exp.exp_name: there is no experiment 'gone' in "
        "data; there are: none\n"
        "  fix: train it first: pymodules new gone, pymodules train gone"
    )


def test_an_override_on_the_command_line_is_reported_as_one_and_nothing_is_written(home):
    path = write(home, net=from_ckp("a.pt"))

    done = start_command(
        "train", "tiny", "-s", "modules.settings.net.load_weights_from_ckp.ckp_name=b.pt"
    )

    assert done.returncode == 2
    assert done.stderr.splitlines()[:2] == [
        "error: data/module_ckps/b.pt: there is no such checkpoint, and no folder data/module_ckps",
        "  asked for by module 'net', override modules.settings.net.load_weights_from_ckp",
    ]
    assert "Traceback" not in done.stderr
    assert not (path / "data").exists()


def test_two_values_for_one_tensor_are_refused(home, linear):
    save(home / "module_ckps/a.pt", linear)
    save(home / "module_ckps/b.pt", {**linear, "bias": linear["bias"] + 1})
    twin = f"from modules.net import module\nsettings = {from_ckp('b.pt')}\n"
    pool = ModulePool.discover(write(home, net=from_ckp("a.pt"), twin=twin))

    error = refusal(pool, WeightMismatchError)

    assert str(error) == (
        "data/module_ckps/b.pt: net.bias and twin.bias are one tensor, and would get different "
        "values\n  asked for by data/experiments/tiny/pymodules/modules/twin.py:2: "
        "settings.load_weights_from_ckp\n  fix: load both from one checkpoint, or only one of them"
    )


def test_one_value_for_two_modules_that_share_it_is_loaded(home, linear):
    save(home / "module_ckps/a.pt", {**linear, "bias": torch.tensor([-0.0])})
    twin = f"from modules.net import module\nsettings = {from_ckp('a.pt')}\n"
    pool = ModulePool.discover(write(home, net=from_ckp("a.pt"), twin=twin))

    load_initial_weights(pool)

    assert pool.twin.weight is pool.net.weight
    assert torch.equal(pool.net.weight, linear["weight"])
