"""What is wrong with a network that settings take out of a LightningModule, in one message."""

import pytest
import torch
from lightning_cases import same_weights
from lightning_projects import KEY, PLUGINS, Note, table, train_lightning

from pymodules_core.errors import PymodulesError


def refusal(path, make_pool) -> PymodulesError:
    with pytest.raises(PymodulesError) as caught:
        make_pool(path, PLUGINS)
    return caught.value


CLASS, ATTRIBUTE = f"{KEY}.lightning_module", f"{KEY}.attribute"


@pytest.mark.parametrize(
    ("toml", "key", "line", "message"),
    [
        (
            table(lightning_module='"my_project.models:Lit"'),
            CLASS,
            2,
            "'my_project.models' cannot be imported: there is no 'my_project'\n"
            "  fix: install the package, or put the folder that holds it on PYTHONPATH",
        ),
        (
            table(lightning_module='"lightning_projects:LitSun"'),
            CLASS,
            2,
            "'lightning_projects' has no 'LitSun'; its LightningModules: LitSum, LitLate, LitOld, "
            "LitWatch, LitNeeds\n"
            "  closest match: lightning_projects:LitSum\n"
            "  fix: write 'lightning_projects:LitSum'",
        ),
        (
            table(lightning_module='"lightning_projects:Encoder"'),
            CLASS,
            2,
            "expected a subclass of LightningModule, found the class Encoder\n"
            "  fix: name one; any other class of a network is one line of a module file",
        ),
        (
            table(lightning_module='"lightning.pytorch:LightningModule"'),
            CLASS,
            2,
            "expected a subclass of LightningModule, found the class LightningModule\n"
            "  fix: name one; any other class of a network is one line of a module file",
        ),
        (
            table(lightning_module='"lightning_projects.LitSum"'),
            CLASS,
            2,
            "'lightning_projects.LitSum' names no class\n  fix: write \"package.module:Class\"",
        ),
        (
            table(attribute='"encodr"'),
            ATTRIBUTE,
            3,
            "LitSum has no submodule 'encodr'; it has: encoder, head, out\n"
            "  closest match: encoder\n"
            "  fix: write 'encoder'",
        ),
        (
            table(attribute='"width"'),
            ATTRIBUTE,
            3,
            "'width' of LitSum is int 8, no submodule; it has: encoder, head, out\n"
            "  fix: name one of them, or a part of one: model.encoder",
        ),
        # A property of Lightning's, which raises where there is no trainer.
        (
            table(attribute='"trainer"'),
            ATTRIBUTE,
            3,
            "LitSum has no submodule 'trainer'; it has: encoder, head, out\n"
            "  fix: name one of them, or a part of one: model.encoder",
        ),
        (
            table(attribute='""'),
            ATTRIBUTE,
            3,
            "'' names no submodule\n"
            '  fix: write the path of one network, such as "encoder" or "model.encoder"; the whole '
            "LightningModule is not taken",
        ),
        (
            table(attribute=None),
            ATTRIBUTE,
            1,
            "is missing\n  fix: add 'attribute'",
        ),
        (
            table(arguments="{ widht = 4 }"),
            f"{KEY}.arguments.widht",
            4,
            "LitSum takes no such argument; it takes: width, rate, note\n"
            "  closest match: width\n"
            "  fix: write 'width'",
        ),
        (
            table("[modules.args.teacher]", "dropout_layers = 4"),
            "modules.args.teacher.dropout_layers",
            5,
            "LitSum takes no such argument; it takes: width, rate, note\n"
            "  fix: remove 'dropout_layers'",
        ),
        (
            table(lightning_module='"lightning_projects:LitNeeds"'),
            f"{KEY}.arguments",
            1,
            "LitNeeds needs width\n  fix: arguments = { width = ... }",
        ),
        (
            table(ckp_name='"../sum.ckpt"'),
            f"{KEY}.ckp_name",
            4,
            "ckp_name '../sum.ckpt' is not allowed: it holds a path separator\n"
            "  fix: use one plain name of letters, digits, '_', '-' and '.'",
        ),
    ],
)
def test_settings_that_do_not_hold_are_reported_with_their_place(
    toml, key, line, message, make_experiment, make_pool
):
    path = make_experiment(toml=toml)

    error = refusal(path, make_pool)

    assert (error.key, error.line) == (key, line)
    assert str(error).removeprefix(f"{path}/") == f"experiment.toml:{line}: {key}: {message}"


def test_an_import_that_fails_is_reported(tmp_path, make_experiment, make_pool, monkeypatch):
    (tmp_path / "project_with_a_slip.py").write_text("import torch\ntorch.nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = make_experiment(toml=table(lightning_module='"project_with_a_slip:Lit"'))

    error = refusal(path, make_pool)

    assert error.what == (
        f"{CLASS}: importing 'project_with_a_slip' raises AttributeError: module 'torch' has no "
        "attribute 'nothing'"
    )
    assert error.fix == "mend it, until python -c 'import project_with_a_slip' is silent"


def test_a_class_that_raises_is_reported(make_experiment, make_pool):
    fields = {"lightning_module": '"lightning_projects:LitNeeds"', "arguments": "{ width = 0 }"}

    error = refusal(make_experiment(toml=table(**fields)), make_pool)

    assert str(error) == (
        f"{KEY}: making LitNeeds raises ValueError: width is 0\n"
        "  fix: give it other arguments, or mend the class"
    )


def test_a_network_that_holds_its_lightning_module_is_refused(make_experiment, make_pool):
    path = make_experiment(toml=table(lightning_module='"lightning_projects:LitWatch"'))

    error = refusal(path, make_pool)

    assert str(error) == (
        f"{ATTRIBUTE}: 'encoder' of LitWatch holds the LitWatch itself, in an attribute or by a "
        "method in one of its hooks\n"
        "  fix: let LitWatch reach into the network instead, or name a part of it that does not"
    )


def test_weights_of_another_width_are_refused_in_one_table(trained, make_experiment, make_pool):
    path = make_experiment(toml=table(ckp_name='"sum.ckpt"', arguments="{ width = 7 }"))

    error = refusal(path, make_pool)

    lines = str(error).splitlines()
    assert lines[0] == "data/module_ckps/sum.ckpt: weights do not fit module 'teacher':"
    assert lines[1] == "  body.0.weight: shape [6, 4] in the file, [7, 4] in the module"
    assert lines[-2:] == [
        f"  asked for by {KEY}.ckp_name",
        "  fix: give the arguments that the LightningModule was trained with",
    ]


def test_weights_that_are_not_finite_are_refused(trained, make_experiment, make_pool):
    content = torch.load(trained[1], weights_only=True)
    content["state_dict"]["encoder.out.bias"][0] = torch.nan
    torch.save(content, trained[1])
    path = make_experiment(toml=table(ckp_name='"sum.ckpt"', arguments="{ width = 6 }"))

    error = refusal(path, make_pool)

    assert "out.bias: 1 of 1 values" in error.what
    assert error.fix == "take another checkpoint"


def test_a_checkpoint_of_something_else_is_refused(home, make_experiment, make_pool):
    (home / "module_ckps").mkdir(parents=True)
    torch.save({"state_dict": {"decoder.weight": torch.ones(1)}}, home / "module_ckps/x.ckpt")
    path = make_experiment(toml=table(ckp_name='"x.ckpt"'))

    error = refusal(path, make_pool)

    assert str(error) == (
        "data/module_ckps/x.ckpt: no key starts with 'encoder.'; keys start with: decoder\n"
        f"  asked for by {KEY}.ckp_name\n"
        "  closest match: decoder\n"
        "  fix: take a checkpoint of this LightningModule, as Trainer.save_checkpoint writes it"
    )


def test_a_checkpoint_that_is_not_there_is_reported_with_those_that_are(
    trained, make_experiment, make_pool
):
    path = make_experiment(toml=table(ckp_name='"sums.ckpt"'))

    error = refusal(path, make_pool)

    assert error.what == (
        "there is no such checkpoint; data/module_ckps holds: sum.ckpt\n"
        f"  asked for by {KEY}.ckp_name"
    )
    assert error.closest == "sum.ckpt"


def test_a_checkpoint_with_a_class_in_it_is_not_loaded_and_the_fix_works(
    home, make_experiment, make_pool
):
    model, _ = train_lightning(home, note=Note("mine"))
    path = make_experiment(toml=table(ckp_name='"sum.ckpt"'))

    error = refusal(path, make_pool)
    fix = error.fix.partition(": ")[2]
    exec(fix, {"torch": torch})  # noqa: S102
    again = make_experiment("again", toml=table(ckp_name='"sum_weights.pt"'))

    assert str(error) == (
        "data/module_ckps/sum.ckpt: holds lightning_projects.Note, which is not a tensor or "
        "primitive "
        "and could run code\n"
        f"  asked for by {KEY}.ckp_name\n"
        "  fix: where you trust it, make a file of its weights, and name that: "
        'torch.save(torch.load("data/module_ckps/sum.ckpt", weights_only=False)["state_dict"], '
        '"data/module_ckps/sum_weights.pt")'
    )
    assert same_weights(make_pool(again, PLUGINS).teacher.state_dict(), model.encoder.state_dict())


def test_a_link_out_of_the_data_home_is_not_followed(trained, tmp_path, make_experiment, make_pool):
    outside = trained[1].rename(tmp_path / "outside.ckpt")
    trained[1].symlink_to(outside)
    path = make_experiment(toml=table(ckp_name='"sum.ckpt"'))

    error = refusal(path, make_pool)

    assert str(error).startswith(
        f"{KEY}.ckp_name: data/module_ckps/sum.ckpt leads out of the data home, to {outside}"
    )
