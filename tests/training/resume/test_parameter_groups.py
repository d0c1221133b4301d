"""Parameter groups that a task adds, changes and removes during a run, and their resume."""

import pytest
from run_cases import outcome_of
from support import TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.cli.main import run as run_command
from pymodules_core.errors import RunChangedError, StepError, TaskError
from pymodules_core.testing import train_steps
from pymodules_core.training.optim.resume import OptimizerResume
from pymodules_core.training.run_output.console import SilentPrinter

# The first two layers rest until a task lets them learn.
LAYERS = """
from torch import nn

module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
module[:2].requires_grad_(False)
settings = {}
"""
TASK = (
    TINY_TASK.replace(
        "def train_step(module_pool, batch):", "def train_step(module_pool, batch, run):"
    )
    .replace(
        "from torch.optim import SGD",
        "from torch.optim import *\nfrom torch.optim.lr_scheduler import *",
    )
    .replace("SGD(module_pool.net.parameters(), lr=0.1)", "OPTIMIZER")
    .replace(
        "    inputs, targets = batch\n    return mse_loss",
        "    STEP\n    inputs, targets = batch\n    return mse_loss",
        1,
    )
    + """

def add(run, layer, name="main", **options):
    part = run.module_pool.net[layer]
    part.requires_grad_(True)
    run.optimizers[name].add_param_group({"params": list(part.parameters()), **options})

"""
)
HEAD = "module_pool.net[2].parameters()"
MOMENTUM = f"SGD({HEAD}, lr=0.05, momentum=0.9)"
TOML = "[train]\nepochs = 3\nbatch_size = 16\n"
ADD_AT_3 = "run.step == 3 and add(run, 0)"
AROUND_3 = (3, 4, 7)


def write(home, name="e", *, step="pass", optimizer=MOMENTUM, more="", toml=TOML, layers=LAYERS):
    task = TASK.replace("OPTIMIZER", optimizer).replace("STEP", step) + more
    return write_experiment(home, name, modules={"net": layers}, task=task, toml=toml)


def assert_resumes(home, *, stops=AROUND_3, **parts):
    """Compare a whole run with runs that stop after each of some steps."""
    whole = write(home, "whole", **parts)
    train_steps(whole, plugins={})
    for stop in stops:
        path = write(home, f"stopped_{stop}", **parts)
        stopped = train_steps(path, stop, plugins={})
        assert stopped.run.step == stop

        train_steps(path, plugins={})

        assert outcome_of(path) == outcome_of(whole), stop
    return whole


OPTIMIZERS = {
    "sgd": MOMENTUM,
    "sgd without momentum": f"SGD({HEAD}, lr=0.05)",
    "adam": f"Adam({HEAD}, lr=0.01)",
    "amsgrad": f"AdamW({HEAD}, lr=0.01, amsgrad=True)",
    "foreach": f"Adam({HEAD}, lr=0.01, foreach=True)",
    "named": "AdamW(((k, p) for k, p in module_pool.net[2].named_parameters()), lr=0.01)",
    "rate as tensor": f"AdamW({HEAD}, lr=torch.tensor(0.01))",
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_group_that_was_added_is_there_after_a_resume(tmp_path, optimizer):
    named = "run.module_pool.net[0].requires_grad_(True).named_parameters()"
    step = (
        f"run.step == 3 and run.optimizers['main'].add_param_group({{'params': {named}}})"
        if "named" in optimizer
        else ADD_AT_3
    )

    assert_resumes(tmp_path, optimizer=optimizer, step=step)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (MOMENTUM, "lr=0.5, weight_decay=0.1, momentum=0.5, nesterov=True"),
        (f"Adam({HEAD}, lr=0.01)", "lr=0.2, betas=(0.5, 0.7), weight_decay=0.3, amsgrad=True"),
        (f"Adam({HEAD}, lr=0.01)", "lr=0.2, label='backbone'"),
    ],
)
def test_it_has_its_own_options(tmp_path, optimizer, options):
    assert_resumes(tmp_path, optimizer=optimizer, step=f"run.step == 3 and add(run, 0, {options})")


HOOKS = {
    "weights_ready": "def weights_ready(run):\n    add(run, 0, lr=0.1)\n",
    "train_step_finished": "def train_step_finished(run):\n    run.step == 4 and add(run, 0)\n",
    "epoch_finished": "def epoch_finished(run):\n    run.epoch == 1 and add(run, 0)\n",
    "epoch by epoch": "def epoch_finished(run):\n    run.epoch < 2 and add(run, 1 - run.epoch)\n",
}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_it_may_be_added_in_a_hook(tmp_path, hook):
    assert_resumes(tmp_path, more=hook, stops=(0, 3, 4, 6))


STEPS = {
    "two groups": "run.step in (2, 5) and add(run, (run.step == 5) + 0, lr=0.1 / (run.step + 1))",
    "a rate set by hand": f"{ADD_AT_3}\n    run.step == 5 and run.optimizers['main']."
    "param_groups[1].update(lr=0.3)",
    "added to a group": "run.step == 3 and run.optimizers['main'].param_groups[0]['params']."
    "extend(module_pool.net[0].requires_grad_(True).parameters())",
    "moved": f"{ADD_AT_3}\n    groups = run.optimizers['main'].param_groups\n"
    "    run.step == 5 and groups[1]['params'].append(groups[0]['params'].pop())",
    "removed": "run.step == 3 and add(run, 0)\n"
    "    run.step == 5 and run.optimizers['main'].param_groups.pop()",
    "the first removed": "run.step == 3 and add(run, 0)\n"
    "    run.step == 4 and run.optimizers['main'].param_groups.pop(0)",
    "removed and added again": "groups = run.optimizers['main'].param_groups\n"
    "    run.step == 3 and add(run, 0)\n"
    "    kept = module_pool.net[0]\n"
    "    run.step == 4 and groups.pop()\n"
    "    run.step == 6 and add(run, 0, lr=0.01)",
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_groups_may_be_changed_in_any_way(tmp_path, step):
    optimizer = f"Adam({HEAD}, lr=0.01)"

    assert_resumes(tmp_path, step=step, optimizer=optimizer, stops=(4, 5, 6, 7))


SCHEDULERS = {
    "StepLR": "StepLR(optimizers['main'], 2, gamma=0.5)",
    "ExponentialLR": "ExponentialLR(optimizers['main'], 0.8)",
    "LinearLR": "LinearLR(optimizers['main'], 0.1, total_iters=6)",
    "OneCycleLR": "OneCycleLR(optimizers['main'], 0.2, total_steps=20, cycle_momentum=False)",
    "ReduceLROnPlateau": "ReduceLROnPlateau(optimizers['main'], patience=0, threshold=9e9)",
    "SequentialLR": "SequentialLR(optimizers['main'], [LinearLR(optimizers['main']),"
    " ExponentialLR(optimizers['main'], 0.9)], [1])",
}


@pytest.mark.parametrize(
    ("scheduler", "schedule"),
    [
        pytest.param(name, schedule, marks=pytest.mark.long if schedule == "step" else ())
        for name in SCHEDULERS
        for schedule in ("epoch", "step")
        if (name, schedule) != ("ReduceLROnPlateau", "step")
    ],
)
def test_a_scheduler_treats_it_as_in_the_whole_run(tmp_path, scheduler, schedule):
    options = ""
    if scheduler == "OneCycleLR":
        options = ", initial_lr=0.01, max_lr=0.1, min_lr=0.001"
    more = f"\n\ndef schedulers(optimizers, epochs):\n    return {SCHEDULERS[scheduler]}\n"
    toml = f'{TOML}[optimizers.main]\nschedule = "{schedule}"\n'

    assert_resumes(tmp_path, step=f"run.step == 3 and add(run, 0{options})", more=more, toml=toml)


CIRCUMSTANCES = {
    "bf16": 'precision = "bf16"\n',
    "fp16": 'precision = "fp16"\n',
    "accumulation": "[optimizers.main]\naccumulate = 2\n",
    "clipping": "[optimizers.main]\nclip_norm = 0.01\n",
    "all": 'precision = "fp16"\n[optimizers.main]\naccumulate = 3\nclip_value = 0.01\n',
}


@pytest.mark.parametrize("toml", CIRCUMSTANCES.values(), ids=CIRCUMSTANCES)
@pytest.mark.parametrize(
    "layers",
    [LAYERS, pytest.param(LAYERS.replace("module[:2]", "# module[:2]"), marks=pytest.mark.long)],
)
def test_it_is_restored_in_an_open_window_and_with_any_precision(tmp_path, toml, layers):
    step = "run.step == 4 and add(run, 0)"

    assert_resumes(tmp_path, step=step, toml=TOML + toml, layers=layers, stops=(1, 4, 5, 7))


def test_two_optimizers_keep_theirs_apart(tmp_path):
    """And a parameter that came to one of them gets no gradient from the other's loss."""
    optimizer = (
        "{'head': Adam(module_pool.net[2].parameters()), "
        "'body': SGD(module_pool.net[1].parameters(), lr=0.1, momentum=0.9)}"
    )
    step = """run.step == 3 and add(run, 0, "body")
    for name, factor in ("head", 1.0), ("body", 0.1):
        with run.optimize(name) as block:
            block.loss = mse_loss(module_pool.net(batch[0]), batch[1]) * factor
            block.backward(block.loss)
            first = module_pool.net[0].weight.grad
            assert (first is not None) == (name == "body" and run.step >= 3)
            block.loss = None
    return
"""
    layers = LAYERS.replace("[:2]", "[0]")

    assert_resumes(tmp_path, optimizer=optimizer, step=step, layers=layers)


def test_it_is_clipped_as_the_others_are(tmp_path):
    """The norm that is limited is that of all gradients, those of a later group included."""
    step = (
        f"{ADD_AT_3}\n    run.state['before'] = "
        "[p.detach().clone() for p in module_pool.net.parameters()]"
    )
    more = (
        "\n\ndef train_step_finished(run):\n"
        "    moved = [a - b.detach() for a, b in"
        " zip(run.state['before'], run.module_pool.net.parameters())]\n"
        "    run.state.setdefault('norms', [])\n"
        "    run.state['norms'] = [*run.state['norms'],"
        " float(torch.cat([one.flatten() for one in moved]).norm())]\n"
    )
    toml = f"{TOML}[optimizers.main]\nclip_norm = 0.01\n"
    path = write(tmp_path, optimizer=f"SGD({HEAD}, lr=1.0)", step=step, more=more, toml=toml)

    norms = train_steps(path, plugins={}).run.state["norms"]

    assert norms == pytest.approx([0.01] * 9, rel=1e-4)


def test_gradients_from_before_it_was_added_train_nothing(tmp_path):
    """They are of losses of steps that no checkpoint knows."""
    learning = LAYERS.replace("module[:2]", "# module[:2]")
    late, at_once = (
        write(tmp_path, name, step=step, optimizer=f"SGD({HEAD}, lr=0.05)", layers=learning)
        for name, step in (
            ("late", "run.step == 3 and add(run, 0)"),
            (
                "at_once",
                "module_pool.net[0].requires_grad_(run.step >= 3)\n"
                "    run.step == 3 and add(run, 0)",
            ),
        )
    )

    train_steps(late, plugins={})
    train_steps(at_once, plugins={})

    assert outcome_of(late) == outcome_of(at_once)


def fit(path, *, accept_changes=False, epochs=3, **more):
    return Trainer(
        path,
        existing="resume",
        accept_changes=accept_changes,
        reporter=SilentPrinter(),
        overrides={"train.epochs": epochs, **more},
    ).fit()


def change(path, old, new):
    task = path / "pymodules" / "task.py"
    assert old in task.read_text()
    task.write_text(task.read_text().replace(old, new))


def groups_after(path, **more):
    """Resume for an epoch more; give its groups as lists of names, with their learning rates."""
    task = path / "pymodules" / "task.py"
    task.write_text(task.read_text() + SHOW)
    fit(path, accept_changes=True, **more)
    return eval((path / "data" / "groups.txt").read_text())  # noqa: S307  what SHOW wrote


SHOW = """

def run_finished(run):
    names = {id(p): key for key, p in run.module_pool.net.named_parameters()}
    groups = [
        ([names[id(p)] for p in group["params"]], group["lr"])
        for group in run.optimizers["main"].param_groups
    ]
    (run.data_dir / "groups.txt").write_text(repr(groups))
"""
HEAD_NAMES = ["2.weight", "2.bias"]


@pytest.mark.parametrize(
    ("old", "new", "groups"),
    [
        ("lr=0.05", "lr=0.02", [(HEAD_NAMES, 0.02), (["0.weight", "0.bias"], 0.3)]),
        (
            HEAD,
            "module_pool.net[1:].parameters()",
            [(["1.weight", "1.bias", *HEAD_NAMES], 0.05), (["0.weight", "0.bias"], 0.3)],
        ),
        (
            HEAD,
            "[{'params': [p]} for p in module_pool.net[2].parameters()]",
            [(["2.weight"], 0.05), (["2.bias"], 0.05), (["0.weight", "0.bias"], 0.3)],
        ),
        (
            HEAD,
            "[module_pool.net[0].weight, *module_pool.net[2].parameters()]",
            [(["0.weight", *HEAD_NAMES], 0.05), (["0.bias"], 0.3)],
        ),
    ],
)
def test_a_task_that_was_changed_keeps_what_the_run_added(tmp_path, old, new, groups):
    path = write(tmp_path, step="run.step == 3 and add(run, 0, lr=0.3)")
    fit(path, epochs=2)
    change(path, old, new)

    assert groups_after(path) == groups


def test_more_epochs_give_its_schedule_a_later_end_and_keep_it(tmp_path):
    more = "\n\ndef schedulers(optimizers, epochs):\n" + (
        "    return LinearLR(optimizers['main'], 1.0, 0.5, total_iters=epochs)\n"
    )
    path = write(tmp_path, step="run.step == 3 and add(run, 0, lr=0.3)", more=more)
    fit(path, epochs=2)

    (_, head), (names, added) = groups_after(path, epochs=4)

    assert names == ["0.weight", "0.bias"]
    assert head == pytest.approx(0.025)
    assert 0.1 < added < 0.3


BODY_TASK = """run.step == 3 and "body" in module_pool and run.optimizers["main"].add_param_group(
        {"params": list(module_pool.body.requires_grad_(True).parameters()), "lr": 0.01}
    )
    if "body" in module_pool:
        batch = (module_pool.body(batch[0]), batch[1])"""
NOT_TRAINED = (
    "optimizer 'main': not trained any more: body.weight, body.bias, which the run added to it"
)


def write_body(home, optimizer=MOMENTUM):
    path = write(home, step=BODY_TASK, optimizer=optimizer)
    (path / "pymodules/modules/body.py").write_text(
        "from torch import nn\n\nmodule = nn.Linear(4, 4).requires_grad_(False)\nsettings = {}\n"
    )
    return path


def test_one_of_a_module_that_is_gone_is_refused_and_left_out_where_accepted(tmp_path, caplog):
    path = write_body(tmp_path)
    fit(path, epochs=2)
    before = outcome_of(path), (path / "data/run.json").read_bytes()
    (path / "pymodules/modules/body.py").unlink()

    with pytest.raises(RunChangedError) as caught:
        train_steps(path, plugins={})  # which compares no sources

    assert str(caught.value) == (
        "the optimizers cannot be restored as they were saved\n"
        f"  {NOT_TRAINED}\n"
        "  fix: let the task make them as it did, or resume without what is lost: --resume "
        "--accept-changes"
    )
    assert (outcome_of(path), (path / "data/run.json").read_bytes()) == before
    assert groups_after(path) == [(HEAD_NAMES, 0.05)]
    assert NOT_TRAINED in caplog.messages


def test_another_optimizer_than_the_saved_one_is_refused_before_anything_is_written(
    home, monkeypatch, capsys
):
    """Here it depends on the environment, which no source shows."""
    kind = "(Adam if __import__('os').environ.get('OTHER') else SGD)"
    path = write_body(home, optimizer=f"{kind}({HEAD}, lr=0.05)")
    fit(path, epochs=2)
    before = outcome_of(path), (path / "data/run.json").read_bytes()
    monkeypatch.setenv("OTHER", "1")

    codes = [run_command(["train", "e", "--resume"])]
    error = capsys.readouterr().err
    unchanged = outcome_of(path), (path / "data/run.json").read_bytes()
    codes.append(
        run_command(["train", "e", "--resume", "--accept-changes", "-s", "train.epochs=3"])
    )

    assert codes == [2, 0]
    assert (
        "it was torch.optim.sgd.SGD and is torch.optim.adam.Adam: it starts without state" in error
    )
    assert NOT_TRAINED in error
    assert unchanged == before
    assert NOT_TRAINED in capsys.readouterr().err


def test_a_parameter_that_came_to_one_optimizer_and_is_anothers_today_is_refused(tmp_path):
    optimizer = (
        "{'head': SGD(module_pool.net[2].parameters(), lr=0.1),"
        " 'body': SGD(module_pool.net[1].parameters(), lr=0.1)}"
    )
    step = """run.step == 3 and add(run, 0, "body")
    for name in "head", "body":
        with run.optimize(name) as block:
            block.loss = mse_loss(module_pool.net(batch[0]), batch[1])
    return
"""
    path = write(tmp_path, step=step, optimizer=optimizer, layers=LAYERS.replace("[:2]", "[0]"))
    fit(path, epochs=2)
    change(path, "module_pool.net[2].parameters()", "module_pool.net[::2].parameters()")

    with pytest.raises(RunChangedError) as caught:
        fit(path, accept_changes=True)

    assert caught.value.what == (
        "today's optimizers do not fit what the run added to them: optimizers 'head' and 'body' "
        "both own net.0.weight"
    )
    assert caught.value.exit_code == 2


ADDING = "run.optimizers['main'].add_param_group({'params': list("
WRONG = {
    "frozen": (
        f"{ADDING}module_pool.still.parameters())}})",
        "optimizer 'main' owns still.weight, and module 'still' is frozen",
    ),
    "twice": (
        "run.optimizers['main'].param_groups.append(dict(run.optimizers['main'].param_groups[0]))",
        "optimizer 'main' owns net.2.weight twice",
    ),
    "of no module": (
        f"{ADDING}torch.nn.Linear(2, 2).parameters())}})",
        "optimizer 'main' owns a parameter of shape [2, 2] that is in no module of the pool, so it "
        "would never be saved",
    ),
    "of a layer that was replaced": (
        "[run.module_pool.net.__setitem__(0, torch.nn.Linear(4, 4)), "
        f"{ADDING}module_pool.net[0].parameters())}})]",
        "optimizer 'main' was given net.0.weight, which is another parameter than the module had "
        "when the run began",
    ),
    "a rate that is none": (
        "add(run, 0, lr=float('nan'))",
        "optimizer 'main' has the learning rate nan",
    ),
    "none left": (
        "run.optimizers['main'].param_groups.clear()",
        "optimizer 'main' has no parameter group left",
    ),
}


@pytest.mark.parametrize(("step", "what"), WRONG.values(), ids=WRONG)
def test_what_an_optimizer_may_not_own_it_may_not_be_given_later(tmp_path, step, what):
    path = write(tmp_path, step=f"run.step == 3 and {step}")
    (path / "pymodules/modules/still.py").write_text(
        "from torch import nn\n\nmodule = nn.Linear(2, 2)\nsettings = {'frozen': True}\n"
    )

    with pytest.raises(TaskError) as caught:
        fit(path)

    assert caught.value.what == f"{what} (epoch 2, step 4, batch 1)"
    assert caught.value.file == path / "pymodules/task.py"


def test_what_a_hook_may_not_add_is_not_saved(tmp_path):
    """Else no resume could do without it."""
    hook = "def train_step_finished(run):\n    run.step == 4 and add(run, 0, lr=float('inf'))\n"
    path = write(tmp_path, more=hook)

    with pytest.raises(TaskError):
        fit(path, **{"checkpoints.every_n_steps": 1})
    change(path, "float('inf')", "0.1")

    assert groups_after(path) == [(HEAD_NAMES, 0.05), (["0.weight", "0.bias"], 0.1)]


def test_a_parameter_that_another_optimizer_has_is_refused(tmp_path):
    optimizer = (
        "{'head': SGD(module_pool.net[2].parameters(), lr=0.1),"
        " 'body': SGD(module_pool.net[1].parameters(), lr=0.1)}"
    )
    step = """run.step == 3 and add(run, 2, "body")
    for name in "head", "body":
        with run.optimize(name) as block:
            block.loss = mse_loss(module_pool.net(batch[0]), batch[1])
    return
"""
    path = write(tmp_path, step=step, optimizer=optimizer, layers=LAYERS.replace("[:2]", "[0]"))

    with pytest.raises(TaskError) as caught:
        fit(path)

    assert caught.value.what == (
        "optimizers 'head' and 'body' both own net.2.weight (epoch 2, step 4, batch 1)"
    )


def test_a_hook_that_adds_it_in_each_process_is_pointed_to_the_one_that_is_called_once(tmp_path):
    path = write(tmp_path, more="def run_started(run):\n    add(run, 0)\n")
    fit(path, epochs=1)

    with pytest.raises(StepError) as caught:
        fit(path)

    assert caught.value.what == (
        "run_started raises ValueError: some parameters appear in more than one parameter group"
    )
    assert caught.value.fix == (
        "add a group once: a resumed run has those that were added before it stopped. The hook "
        "weights_ready is called once a run, run_started in each process"
    )


@pytest.mark.parametrize("schedule", ["epoch", "step"])
def test_a_scheduler_that_knows_no_later_groups_is_named(tmp_path, schedule):
    more = (
        "\n\ndef schedulers(optimizers):\n    return LambdaLR(optimizers['main'], lambda n: 1.0)\n"
    )
    toml = f'{TOML}[optimizers.main]\nschedule = "{schedule}"\n'
    path = write(tmp_path, step=ADD_AT_3, more=more, toml=toml)

    with pytest.raises(TaskError) as caught:
        fit(path)

    assert caught.value.what.startswith(
        "LambdaLR of optimizer 'main' was made for 1 of its 2 parameter groups: ValueError: zip()"
    )
    assert caught.value.fix == (
        "return all groups from optimizers(), and turn requires_grad on when one is to learn; or "
        "take a scheduler that follows each group, such as StepLR"
    )


EXTENDED = """

KEPT = []


def schedulers(optimizers):
    KEPT[:] = [LambdaLR(optimizers["main"], lambda n: 0.9**n)]
    return KEPT[0]


def extend():
    KEPT[0].lr_lambdas.append(lambda n: 0.5**n)
    KEPT[0].base_lrs.append(0.1)
"""


def test_a_function_that_the_run_gave_a_scheduler_is_missed_at_a_resume(tmp_path):
    path = write(tmp_path, step=f"{ADD_AT_3}\n    run.step == 3 and extend()", more=EXTENDED)
    fit(path, epochs=2)

    with pytest.raises(RunChangedError) as caught:
        fit(path)

    assert caught.value.found == [
        "optimizer 'main': its scheduler does not take back what it had of the parameter groups "
        "that the run added"
    ]


def test_a_checkpoint_from_before_groups_were_noted_brings_them_back(tmp_path, monkeypatch):
    whole, path = (write(tmp_path, name, step=ADD_AT_3) for name in ("whole", "old"))
    train_steps(whole, plugins={})
    kept = OptimizerResume.state_dict

    def state_of_before(self, names):
        return {key: one for key, one in kept(self, names).items() if key != "start_groups"}

    with monkeypatch.context() as patched:
        patched.setattr(OptimizerResume, "state_dict", state_of_before)
        train_steps(path, 5, plugins={})
    train_steps(path, plugins={})

    assert outcome_of(path) == outcome_of(whole)


OWN_CLASS_TASK = TINY_TASK.replace(
    "def optimizers(module_pool):\n    return SGD(module_pool.net.parameters(), lr=0.1)",
    "class Heavy(SGD):\n    pass\n\n\ndef optimizers(module_pool):\n"
    "    return Heavy(module_pool.net.parameters(), lr=0.05, momentum=0.9)",
)


@pytest.mark.parametrize("of_older_version", [False, True])
def test_an_optimizer_of_the_task_keeps_its_momentum_where_the_folder_moves(
    tmp_path, monkeypatch, caplog, of_older_version
):
    whole, path = (
        write_experiment(tmp_path, name, task=OWN_CLASS_TASK) for name in ("whole", "old")
    )
    fit(whole, epochs=2)
    if of_older_version:
        name = "pymodules_core.discovery.module_files.xf52g64a_1.task.Heavy"
        monkeypatch.setattr(
            "pymodules_core.training.optim.resume._kind_of", lambda value: value and name
        )
    fit(path, epochs=1)
    monkeypatch.undo()
    moved = path.rename(path.with_name("new"))
    caplog.clear()

    fit(moved, epochs=2)

    assert outcome_of(moved) == outcome_of(whole)
    assert [record.message for record in caplog.records if "optimizer" in record.message] == []
