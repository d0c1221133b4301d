"""Every mistake is one message: where, what was found, the closest match, the fix."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from pymodules_transformers import build_model, save_folder

from pymodules_core.errors import (
    BuildError,
    CheckpointError,
    CheckpointFileError,
    CheckpointNotFoundError,
    InvalidNameError,
    SettingsError,
    WeightMismatchError,
)


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch) -> Path:
    """A folder ``lm`` with a language model, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return save_folder(build_model("gpt2", head="causal-lm", **tiny["gpt2"]), "lm")


def refused(error_class, *args, **kwargs) -> str:
    with pytest.raises(error_class) as caught:
        build_model(*args, **kwargs)
    return str(caught.value)


VERSION = transformers.__version__
SETTINGS_FAULTS = {
    "neither": (
        (),
        {},
        "build_model: neither model nor folder is given\n"
        '  fix: write a model type, model = "gpt2", or a folder in module_ckps/',
    ),
    "both": (
        ("gpt2",),
        {"folder": "lm"},
        "build_model.model: both model 'gpt2' and folder 'lm' are given\n"
        "  fix: remove model: config.json in the folder says what it is",
    ),
    "patterns without a folder": (
        ("gpt2",),
        {"unused_weights": ["cls.*"]},
        "build_model.unused_weights: is given without folder, and all weights begin random\n"
        "  fix: remove unused_weights, or name the folder that the weights come from",
    ),
    "a type": (
        ("brt",),
        {},
        f"build_model.model: transformers {VERSION} has no model type 'brt'\n"
        "  closest match: bert\n"
        "  fix: write 'bert'",
    ),
    "a type like no other": (
        ("qqqqqqqqqqqq",),
        {},
        f"build_model.model: transformers {VERSION} has no model type 'qqqqqqqqqqqq'\n"
        "  fix: take a key of transformers.CONFIG_MAPPING: bert, gpt2, llama, vit …",
    ),
    "a head that the type lacks": (
        ("vit",),
        {"head": "causal-lm"},
        "build_model.head: a vit has no head 'causal-lm'; it has: base, image-classification, "
        "masked-image-modeling\n"
        "  fix: take one of them, or a model type that has it",
    ),
    "a dtype": (
        ("gpt2",),
        {"dtype": "fp16"},
        "build_model.dtype: expected one of 'float32', 'bfloat16', found str 'fp16'",
    ),
    "a value": (
        ("gpt2",),
        {"n_layer": "two"},
        "build_model.config: GPT2Config refuses it: Validation error for field 'n_layer': "
        "TypeError: Field 'n_layer' expected int, got str (value: 'two')\n"
        "  fix: give values that fit together",
    ),
}


@pytest.mark.parametrize("case", SETTINGS_FAULTS)
def test_settings_that_do_not_hold(case):
    args, kwargs, message = SETTINGS_FAULTS[case]

    assert refused(SettingsError, *args, **kwargs) == message


@pytest.mark.parametrize(
    ("field", "advice"),
    [
        ("n_layr", "  closest match: n_layer\n  fix: write 'n_layer' or remove 'n_layr'"),
        ("qqqqqqqq", "  fix: remove 'qqqqqqqq'"),
    ],
)
def test_a_field_that_the_config_lacks(field, advice):
    first, _, rest = refused(SettingsError, "gpt2", **{field: 2}).partition("\n")

    # How many there are changes with transformers.
    assert first.partition(", … (")[0] == (
        f"build_model.config.{field}: GPT2Config has no such field; it has: vocab_size, "
        "n_positions, n_embd, n_layer, n_head, n_inner, activation_function, resid_pdrop"
    )
    assert rest == advice


def test_a_head_is_reported_with_its_right_spelling():
    message = refused(SettingsError, "gpt2", head="causal_lm")

    assert message.startswith(
        "build_model.head: expected one of 'base', 'pretraining', 'causal-lm'"
    )
    assert message.endswith("found str 'causal_lm'\n  fix: write 'causal-lm'")


def test_a_setting_is_not_a_field_of_the_config(write_experiment):
    from pymodules_core import ModulePool

    path = write_experiment(
        '[plugins.settings.transformers.modules.lm]\nmodel = "gpt2"\nconfig = { dtype = "x" }\n'
    )

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert (caught.value.file, caught.value.line) == (path / "experiment.toml", 3)
    caught.value.file = None
    assert str(caught.value) == (
        "plugins.settings.transformers.modules.lm.config.dtype: is not a field of the config here\n"
        "  fix: write dtype beside config"
    )


def test_fields_of_a_config_within_are_checked():
    assert refused(SettingsError, "clip", text_config={"hiden_size": 3}).startswith(
        "build_model.config.text_config.hiden_size: CLIPTextConfig has no such field; it has: "
    )
    chosen = {"model_type": "llama", "hiden_size": 3}
    assert refused(SettingsError, "llava", text_config=chosen).startswith(
        "build_model.config.text_config.hiden_size: LlamaConfig has no such field; it has: "
    )


def test_sizes_that_the_model_refuses():
    assert refused(BuildError, "gpt2", n_embd=17, n_head=2) == (
        "build_model: transformers cannot make a gpt2 of this config: ValueError: `embed_dim` must "
        "be divisible by num_heads (got `embed_dim`: 17 and `num_heads`: 2).\n"
        "  fix: change the fields of config that it names"
    )


def test_no_folder_of_that_name(folder):
    Path("data").mkdir()

    assert refused(CheckpointNotFoundError, folder="lmm") == (
        "build_model.folder: the folder lmm does not exist; folders in .: data, lm\n"
        "  closest match: lm\n"
        "  fix: put there what model.save_pretrained(folder) writes; nothing is downloaded"
    )


def test_a_file_is_not_a_folder(folder):
    assert refused(CheckpointNotFoundError, folder=folder / "config.json").startswith(
        "build_model.folder: the folder lm/config.json is a file; folders in lm: none\n"
    )


def test_a_folder_without_a_config(folder):
    (folder / "config.json").unlink()

    assert refused(CheckpointNotFoundError, folder=folder) == (
        "lm: build_model.folder: the folder has no config.json; there are: generation_config.json, "
        "model.safetensors\n"
        "  fix: copy the whole folder that model.save_pretrained(folder) wrote"
    )


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()

    assert refused(CheckpointNotFoundError, folder=folder, head="causal-lm") == (
        "lm: build_model.folder: the folder has no weights; there are: config.json, "
        "generation_config.json\n"
        "  fix: put model.safetensors there, as model.save_pretrained(folder) writes it"
    )


def test_a_folder_of_an_adapter(folder):
    (folder / "adapter_config.json").write_text("{}")

    assert refused(CheckpointFileError, folder=folder) == (
        "lm/adapter_config.json: build_model.folder: the folder holds an adapter of PEFT, which is "
        "not loaded\n"
        "  fix: merge it first: model.merge_and_unload().save_pretrained(folder)"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2"),
        ("[]", "holds list, expected an object\n  fix: copy the whole folder again"),
        ("{}", f"model_type is None; transformers {VERSION} has no such type\n"),
        (
            '{"model_type": "mine", "auto_map": {}}',
            "model_type is 'mine' and code of its own, which is never run; transformers "
            f"{VERSION} has no such type\n",
        ),
        (
            '{"model_type": "gpt2", "quantization_config": {"bits": 4}}',
            "quantization_config is given: the weights are quantised, and cannot be trained or "
            "saved\n  fix: take a folder of the weights before they were quantised",
        ),
    ],
)
def test_a_config_file_that_is_none(folder, content, message):
    (folder / "config.json").write_text(content)

    assert refused(CheckpointFileError, folder=folder).startswith(f"lm/config.json: {message}")


def test_weights_that_are_cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])

    assert refused(CheckpointFileError, folder=folder, head="causal-lm").startswith(
        "lm/model.safetensors: is not a whole safetensors file: "
    )


class Code:
    def __reduce__(self):
        return (print, ("the code of the file ran",))


def test_weights_that_would_run_code(folder, capsys):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Code()}, folder / "pytorch_model.bin")
    assert b"the code" in pickle.dumps(Code())

    message = refused(CheckpointFileError, folder=folder, head="causal-lm")

    assert message.startswith(
        "lm/pytorch_model.bin: holds print, which is not a tensor or primitive"
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", ".."])
def test_an_index_that_leads_out_of_the_folder(folder, name):
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))

    assert refused(InvalidNameError, folder=folder, head="causal-lm").startswith(
        f"lm/model.safetensors.index.json: weight_map {name!r} is not allowed: "
    )


def test_an_index_of_nothing(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("{}")

    assert refused(CheckpointFileError, folder=folder, head="causal-lm") == (
        "lm/model.safetensors.index.json: has no weight_map of keys to files\n"
        "  fix: copy the whole folder again"
    )


def test_weights_that_are_missing_and_left_over(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_folder(build_model("bert", head="masked-lm", **tiny["bert"]), "mlm")

    assert refused(WeightMismatchError, folder="mlm") == (
        "mlm: build_model: the weights do not fit BertModel; they were saved from "
        "BertForMaskedLM:\n"
        "  missing in the folder: pooler.dense.bias, pooler.dense.weight\n"
        "  only in the folder: cls.predictions.bias, cls.predictions.transform.LayerNorm.bias, "
        "cls.predictions.transform.LayerNorm.weight, cls.predictions.transform.dense.bias, "
        "cls.predictions.transform.dense.weight\n"
        "  fix: choose the head and config that it was saved with; for weights to begin random: "
        'new_weights = ["pooler.dense.*"]; for weights to leave out: unused_weights = '
        '["cls.predictions.*", "cls.predictions.transform.LayerNorm.*", '
        '"cls.predictions.transform.dense.*"]'
    )


def test_weights_of_another_shape(folder):
    with pytest.raises(WeightMismatchError) as caught:
        build_model(folder=folder, head="causal-lm", vocab_size=60)

    assert str(caught.value) == (
        "lm: build_model: the weights do not fit GPT2LMHeadModel; they were saved from "
        "GPT2LMHeadModel:\n"
        "  shape of transformer.wte.weight: [50, 16] in the folder, [60, 16] here\n"
        "  fix: choose the head and config that it was saved with; for weights to begin random: "
        'new_weights = ["transformer.wte.*"]'
    )
    assert caught.value.found == {
        "missing": [],
        "mismatched": {"transformer.wte.weight": ((50, 16), (60, 16))},
        "unexpected": [],
    }


def test_a_pattern_that_matches_nothing(folder):
    assert refused(
        SettingsError, folder=folder, head="sequence-classification", new_weights=["scor.*"]
    ) == (
        "build_model.new_weights: 'scor.*' matches no weight that the folder lacks; there are: "
        "score.weight\n"
        "  fix: remove 'scor.*'"
    )


def test_a_broken_copy_is_reported_before_a_model_is_made(folder):
    shutil.rmtree(folder)
    folder.mkdir()

    assert "there are: none" in refused(CheckpointNotFoundError, folder=folder)


def test_an_export_of_what_is_not_a_model(tmp_path):
    with pytest.raises(BuildError) as caught:
        save_folder(torch.nn.Linear(1, 1), tmp_path / "out")

    assert str(caught.value) == (
        "save_folder: expected a model of transformers, found Linear\n"
        "  fix: give one that build_model or [plugins.settings.transformers] made"
    )


def test_an_export_over_another(folder, tiny):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    with pytest.raises(CheckpointError) as caught:
        save_folder(build_model("gpt2", **tiny["gpt2"]), folder)

    assert str(caught.value) == (
        "save_folder: lm is there already\n  fix: name another folder, or remove that one"
    )
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
