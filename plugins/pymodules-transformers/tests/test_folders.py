"""Models from a folder that save_pretrained wrote."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from pymodules_transformers import build_model, save_folder


def made(seed, *args, **kwargs):
    torch.manual_seed(seed)
    return build_model(*args, **kwargs)


def assert_same(found, expected):
    assert list(found.state_dict()) == list(expected.state_dict())
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


@pytest.mark.parametrize("model_type", ["gpt2", "bert", "vit", "t5"])
def test_a_model_comes_back_exactly_and_in_train_mode(model_type, tiny, heads, tmp_path):
    model = made(1, model_type, head=heads[model_type], **tiny[model_type])
    save_folder(model, tmp_path / "folder")

    back = made(2, folder=tmp_path / "folder", head=heads[model_type])

    assert_same(back, model)
    assert type(back) is type(model)
    assert all(module.training for module in back.modules())
    assert all(p.requires_grad for p in back.parameters())
    assert back.config.to_dict() == model.config.to_dict()
    assert back.config.name_or_path == ""


def test_ties_are_ties_again(tiny, tmp_path):
    save_folder(build_model("gpt2", head="causal-lm", **tiny["gpt2"]), tmp_path / "folder")

    back = build_model(folder=tmp_path / "folder", head="causal-lm")

    assert back.lm_head.weight is back.transformer.wte.weight


def test_weights_of_several_files_and_of_torch_are_read(tiny, tmp_path):
    model = build_model("gpt2", head="causal-lm", **tiny["gpt2"])
    model.save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    shutil.copytree(tmp_path / "parts", tmp_path / "torch")
    for file in (tmp_path / "torch").glob("model*"):
        file.unlink()
    torch.save(model.state_dict(), tmp_path / "torch" / "pytorch_model.bin")

    for name in ("parts", "torch"):
        assert_same(build_model(folder=tmp_path / name, head="causal-lm"), model)


def test_weights_become_float32_unless_asked_otherwise(tiny, tmp_path):
    model = build_model("gpt2", dtype="bfloat16", **tiny["gpt2"])
    save_folder(model, tmp_path / "folder")

    back = build_model(folder=tmp_path / "folder")
    half = build_model(folder=tmp_path / "folder", dtype="bfloat16")

    assert {p.dtype for p in back.parameters()} == {torch.float32}
    assert_same(half, model)
    assert_same(back.to(torch.bfloat16), model)


def test_changing_the_model_does_not_change_the_file(tiny, tmp_path):
    save_folder(build_model("gpt2", **tiny["gpt2"]), tmp_path / "folder")
    file = tmp_path / "folder" / "model.safetensors"
    before = file.read_bytes()

    model = build_model(folder=tmp_path / "folder")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()

    assert file.read_bytes() == before


def test_how_to_generate_comes_with_the_folder(tiny, tmp_path):
    model = build_model("gpt2", head="causal-lm", **tiny["gpt2"])
    model.generation_config.max_new_tokens = 7
    save_folder(model, tmp_path / "folder")

    back = build_model(folder=tmp_path / "folder", head="causal-lm")

    assert back.generation_config.max_new_tokens == 7


def test_an_infinity_in_the_config_is_one(tmp_path):
    small = {"num_hidden_layers": 1, "hidden_size": 16, "num_heads": 4, "head_dim": 8}
    limits = (0.0, float("inf"))
    model = build_model("mamba2", vocab_size=50, n_groups=1, time_step_limit=limits, **small)
    save_folder(model, tmp_path / "folder")
    assert "Infinity" in (tmp_path / "folder" / "config.json").read_text()

    assert tuple(build_model(folder=tmp_path / "folder").config.time_step_limit) == limits


def test_a_new_head_is_random_by_seed_and_the_rest_is_loaded(tiny, tmp_path):
    base = build_model("bert", **tiny["bert"])
    save_folder(base, tmp_path / "folder")
    arguments = {
        "folder": tmp_path / "folder",
        "head": "sequence-classification",
        "new_weights": ["classifier.*"],
        "num_labels": 3,
    }

    first, again, other = (made(seed, **arguments) for seed in (1, 1, 2))

    assert first.classifier.weight.shape == (3, 16)
    assert 0 < first.classifier.weight.std() < 0.1
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert_same(first.bert, base)
    assert_same(other.bert, base)


def test_another_number_of_labels_is_a_new_head(tiny, tmp_path):
    save_folder(build_model("vit", head="image-classification", **tiny["vit"]), tmp_path / "folder")

    model = build_model(
        folder=tmp_path / "folder",
        head="image-classification",
        num_labels=5,
        new_weights=["classifier.*"],
    )

    assert model.classifier.weight.shape == (5, 16)
    assert model.config.num_labels == 5


def test_weights_without_a_place_are_left_out_when_named(tiny, tmp_path):
    model = build_model("bert", head="masked-lm", **tiny["bert"])
    save_folder(model, tmp_path / "folder")

    base = build_model(
        folder=tmp_path / "folder", new_weights=["pooler.*"], unused_weights=["cls.*"]
    )

    assert torch.equal(base.embeddings.word_embeddings.weight, model.get_input_embeddings().weight)


def test_config_json_chooses_no_code_and_no_kernels(tiny, tmp_path):
    save_folder(build_model("gpt2", **tiny["gpt2"]), tmp_path / "folder")
    file = tmp_path / "folder" / "config.json"
    config = json.loads(file.read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    config["attn_implementation"] = "kernels-community/evil"
    config["experts_implementation"] = "kernels-community/evil"
    file.write_text(json.dumps(config))
    (tmp_path / "folder" / "evil.py").write_text("raise SystemExit('the code of the folder ran')")

    model = build_model(folder=tmp_path / "folder")

    assert type(model).__module__ == "transformers.models.gpt2.modeling_gpt2"
    assert model.config._attn_implementation in {"eager", "sdpa"}
    assert "evil" not in str(vars(model.config))


def test_no_thread_is_left_behind_because_none_is_started(tiny, tmp_path, monkeypatch):
    save_folder(build_model("gpt2", **tiny["gpt2"]), tmp_path / "folder")
    monkeypatch.setattr("transformers.core_model_loading.ThreadPoolExecutor", None)

    assert build_model(folder=tmp_path / "folder").config.n_layer == 2


def test_nothing_is_asked_of_the_network(tiny, tmp_path):
    program = f"""
import sys

import torch
from pymodules_transformers import build_model, save_folder


def refuse(event, arguments):
    if event in {{"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}}:
        raise SystemExit(f"{{event}} {{arguments}}")


sys.addaudithook(refuse)
save_folder(build_model("gpt2", head="causal-lm", **{tiny["gpt2"]}), "folder")
build_model(folder="folder", head="causal-lm")
print("done")
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (result.stdout, result.stderr) == ("done\n", "")
