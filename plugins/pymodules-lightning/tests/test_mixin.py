"""The module pool inside a ``LightningModule``."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning_cases import NETS, Distill, copy_of, make_trainer, same_weights, write_experiment
from pymodules_lightning import PoolMixin
from torch import nn

from pymodules_core import Trainer
from pymodules_core.errors import SettingsError, UnknownModuleError
from pymodules_core.plugin_api import checkpoints_dir

TASK = """
    import torch
    from torch.utils.data import TensorDataset

    def train_data():
        return TensorDataset(torch.zeros(8, 64))

    def optimizers(module_pool):
        return torch.optim.SGD(module_pool["{name}"].parameters(), lr=0.1)

    def train_step(module_pool, batch):
        return module_pool["{name}"](batch[0]).sum()
    """
LOADED = """
    from torch import nn

    settings = {
        "frozen": True,
        "load_weights_from_exp": {
            "exp_name": "source", "ckp_pool_name": "last", "module_name": "teacher",
        },
    }
    module = nn.Sequential(
        nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)
    )
    """


class Modes(Callback):
    """Notes what is in train mode at the steps of a fit."""

    def __init__(self):
        self.training = []
        self.validating = []

    def on_train_batch_start(self, _trainer, pl_module, *_):
        self.training.append(_in_train_mode(pl_module))

    def on_validation_batch_start(self, _trainer, pl_module, *_):
        self.validating.append(_in_train_mode(pl_module))


def _in_train_mode(model) -> set[str]:
    return {
        name
        for name, module in model.module_pool.items()
        if any(child.training for child in module.modules())
    }


@pytest.fixture
def model(home):
    write_experiment(home, "distill", NETS)
    return Distill("distill", data_home=home)


def test_initial_weights_are_those_of_pymodules_own_trainer(home):
    trained = NETS["teacher"].replace("True", "False")
    write_experiment(home, "source", {"teacher": trained}, task=TASK.format(name="teacher"))
    Trainer("source", data_home=home, overrides={"train.epochs": 1}).fit()
    modules = {**NETS, "teacher": LOADED}
    folder = write_experiment(home, "distill", modules, task=TASK.format(name="student"))
    torch.manual_seed(99)  # of no account

    model = Distill("distill", data_home=home)
    other = Distill("distill", data_home=home, seed=4)
    Trainer("distill", data_home=home, overrides={"train.epochs": 0}).fit()

    pools = checkpoints_dir(folder)
    for name, pool in (("student", "init"), ("scale", "init"), ("teacher", "frzn")):
        saved = torch.load(pools / pool / f"{name}.pt", weights_only=True)
        assert same_weights(saved, model.module_pool[name].state_dict()), name
    source = torch.load(checkpoints_dir(folder.parent / "source") / "last/teacher.pt")
    assert same_weights(source, model.module_pool.teacher.state_dict())
    assert not same_weights(
        model.module_pool.student.state_dict(), other.module_pool.student.state_dict()
    )


def test_modules_are_registered_once_under_their_names(model):
    keys = {key.rpartition(".")[0] for key in model.state_dict()}

    model.to(torch.float64)

    assert keys == {
        "",
        "module_pool.scale",
        "module_pool.student.0",
        "module_pool.student.1",
        "module_pool.student.4",
        "module_pool.teacher.0",
        "module_pool.teacher.1",
        "module_pool.teacher.4",
    }
    assert model.module_pool.student is model.plain_pool.student
    assert model.plain_pool.teacher[0].weight.dtype == torch.float64


def test_a_checkpoint_of_lightnings_loads_into_a_new_model(model, home):
    trainer = make_trainer(home, 1)
    trainer.fit(model)
    trainer.save_checkpoint(home / "lightning.ckpt")

    keys = torch.load(home / "lightning.ckpt", weights_only=True)["state_dict"]
    loaded = Distill.load_from_checkpoint(
        home / "lightning.ckpt", experiment="distill", data_home=home
    )

    assert "module_pool.student.0.weight" in keys
    assert same_weights(model.state_dict(), loaded.state_dict())


def test_frozen_modules_and_those_of_mode_eval_never_train(model, home):
    modes = Modes()
    teacher, scale = copy_of(model.module_pool.teacher), copy_of(model.module_pool.scale)
    student = copy_of(model.module_pool.student)

    make_trainer(home, 2, modes, num_sanity_val_steps=1).fit(model)

    pool = model.module_pool
    assert modes.training == [{"student"}] * 8
    assert modes.validating == [set()] * 5
    # Running statistics of batch norm move in train mode only.
    assert same_weights(teacher, pool.teacher.state_dict())
    assert same_weights(scale, pool.scale.state_dict())
    assert not same_weights(student, pool.student.state_dict())
    assert all(parameter.grad is None for parameter in pool.teacher.parameters())


def test_train_and_unfreeze_leave_frozen_modules_frozen(model):
    model.teacher = model.module_pool.teacher  # also an attribute of its own

    model.freeze()
    model.unfreeze()
    model.train()

    assert model.training
    assert _in_train_mode(model) == {"student"}
    assert not any(p.requires_grad for p in model.module_pool.teacher.parameters())
    assert all(p.requires_grad for p in model.module_pool.student.parameters())
    model.eval()
    assert _in_train_mode(model) == set()
    model.module_pool.train()
    assert _in_train_mode(model) == {"student"}


def test_gradients_flow_through_a_frozen_module(model):
    images = torch.rand(4, 64, requires_grad=True)

    model.module_pool.teacher(images).sum().backward()

    assert images.grad.abs().sum() > 0


def test_trained_parameters_are_those_of_modules_that_are_not_frozen(model):
    student = list(model.module_pool.student.parameters())
    scale = list(model.module_pool.scale.parameters())

    both, one = model.trained_parameters(), model.trained_parameters("student")

    assert [id(p) for p in both] == [id(p) for p in (*scale, *student)]
    assert [id(p) for p in one] == [id(p) for p in student]


def test_parameters_that_cannot_be_trained_are_refused(model):
    with pytest.raises(SettingsError) as frozen:
        model.trained_parameters("student", "teacher")
    with pytest.raises(UnknownModuleError) as unknown:
        model.trained_parameters("studnt")
    model.module_pool.student.requires_grad_(requires_grad=False)
    with pytest.raises(SettingsError) as nothing:
        model.trained_parameters("student")

    assert str(frozen.value) == (
        "an optimizer is to train what is frozen: teacher\n"
        '  fix: leave it out, or set "frozen": False in its settings'
    )
    assert unknown.value.closest == "student"
    assert nothing.value.found == ["student"]


@pytest.mark.parametrize("get", [getattr, lambda pool, name: pool[name]])
def test_an_unknown_module_is_reported_with_the_closest_one(model, get):
    with pytest.raises(UnknownModuleError) as error:
        get(model.module_pool, "techer")

    assert error.value.closest == "teacher"
    assert "there are: scale, student, teacher" in error.value.what


def test_a_deep_copy_has_modules_of_its_own(model):
    other = copy.deepcopy(model)

    with torch.no_grad():
        other.module_pool.student[0].weight.zero_()
    other.train()

    assert other.module_pool.student is other.plain_pool.student
    assert other.module_pool.student is not model.module_pool.student
    assert model.module_pool.student[0].weight.abs().sum() > 0
    assert not other.module_pool.teacher.training


def test_the_mixin_stands_before_lightning_module():
    with pytest.raises(SettingsError) as error:

        class Wrong(LightningModule, PoolMixin):
            pass

    assert error.value.fix == "class Wrong(PoolMixin, LightningModule)"


def test_weights_that_are_gone_do_not_matter_where_they_are_not_loaded(home):
    write_experiment(home, "distill", {**NETS, "teacher": LOADED})

    model = Distill("distill", data_home=home, load_weights=False)

    assert isinstance(model.module_pool.teacher, nn.Sequential)
    assert model.plain_pool.pending_weights == {"teacher"}


def test_a_module_that_run_hooks_keep_up_to_date_is_reported(
    tmp_path, install_distribution, caplog
):
    class Plain(PoolMixin, LightningModule):
        pass

    hook = "@hookimpl\ndef {}:\n    {}\n"
    install_distribution(
        "acme-average",
        "from pymodules_core import ModuleSpec, hookimpl\n"
        + hook.format(
            "provide_module()", "return ModuleSpec(name='average', factory='torch.nn:Identity')"
        )
        + hook.format("train_step_finished(run)", "pass"),
    )

    Plain(write_experiment(tmp_path, "digits", NETS))

    assert caplog.messages == [
        "average of plugin acme-average 1.0 (plugin) is kept up to date by hooks that Lightning "
        "does not call. Fix: use a callback of Lightning's, or leave it out: [plugins] disable = "
        "['acme-average']"
    ]
