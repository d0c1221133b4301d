"""Models from a config: real ones of several architectures, under the host's random stream."""

import os
import threading
from typing import get_args

import pytest
import torch
import transformers
from huggingface_hub import constants, get_session
from huggingface_hub.errors import OfflineModeIsEnabled
from pymodules_transformers import build_model, save_folder
from pymodules_transformers.models import HEADS
from pymodules_transformers.quiet import quiet_and_offline
from pymodules_transformers.settings import Head
from transformers.utils import logging

from pymodules_core.errors import SettingsError

TYPES = ["gpt2", "bert", "vit", "t5"]


def made(seed, *args, **kwargs):
    torch.manual_seed(seed)
    return build_model(*args, **kwargs)


def same(first, second) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(map(torch.equal, a.values(), b.values()))


@pytest.mark.parametrize("model_type", TYPES)
def test_a_model_is_called_as_transformers_documents_and_learns(model_type, tiny, heads, batches):
    model = made(0, model_type, head=heads[model_type], **tiny[model_type])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    losses = []
    for _ in range(8):
        loss = model(**batches[model_type]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("model_type", TYPES)
def test_weights_follow_from_the_seed_and_nothing_else(model_type, tiny, heads):
    arguments = {"head": heads[model_type], **tiny[model_type]}

    first, again, other = (made(seed, model_type, **arguments) for seed in (3, 3, 4))

    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("model_type", TYPES)
def test_dropout_works_in_train_mode_which_models_come_in(model_type, tiny, heads, batches):
    model = made(0, model_type, head=heads[model_type], **tiny[model_type])

    with torch.no_grad():
        training = [model(**batches[model_type]).loss for _ in range(2)]
        model.eval()
        evaluating = [model(**batches[model_type]).loss for _ in range(2)]

    assert training[0] != training[1]
    assert evaluating[0] == evaluating[1]


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_a_class_of_transformers(head):
    assert hasattr(getattr(transformers, HEADS[head]), "from_config")


def test_settings_and_builder_know_the_same_heads():
    assert tuple(HEADS) == get_args(Head)


def test_the_head_chooses_the_class(tiny):
    names = {
        head: type(build_model("bert", head=head, **tiny["bert"])).__name__
        for head in ("base", "pretraining", "sequence-classification", "token-classification")
    }

    assert names == {
        "base": "BertModel",
        "pretraining": "BertForPreTraining",
        "sequence-classification": "BertForSequenceClassification",
        "token-classification": "BertForTokenClassification",
    }


def test_a_field_may_have_its_general_name(tiny):
    own = build_model("gpt2", **tiny["gpt2"])
    general = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
    rest = {k: v for k, v in tiny["gpt2"].items() if k not in {"n_layer", "n_embd", "n_head"}}

    assert build_model("gpt2", **general, **rest).config.to_dict() == own.config.to_dict()


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_dtype_is_that_of_the_weights_and_of_nothing_else(name, dtype, tiny):
    model = build_model("gpt2", dtype=name, **tiny["gpt2"])

    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.get_default_dtype() is torch.float32


def test_attention_is_computed_as_asked_for_to_the_same_result(tiny, batches):
    losses = {}
    for name in ("eager", "sdpa"):
        model = made(0, "gpt2", head="causal-lm", attn_implementation=name, **tiny["gpt2"]).eval()
        losses[model.config._attn_implementation] = model(**batches["gpt2"]).loss

    assert list(losses) == ["eager", "sdpa"]
    torch.testing.assert_close(losses["eager"], losses["sdpa"])


def test_the_first_loss_of_a_language_model_warns_of_nothing(tiny, batches, caplog, monkeypatch):
    monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)
    # What was reported in an earlier test would not be reported again.
    logging.warning_once.cache_clear()

    build_model("gpt2", head="causal-lm", **tiny["gpt2"])(**batches["gpt2"]).loss.backward()

    assert caplog.messages == []


def state_of_the_process():
    return {
        "verbosity": logging.get_verbosity(),
        "progress bars": logging.is_progress_bar_enabled(),
        "hook": logging._tqdm_hook,
        "offline": constants.HF_HUB_OFFLINE,
        "environment": dict(os.environ),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "threads": threading.enumerate(),
    }


def test_building_and_loading_change_nothing_around_them(tiny, tmp_path, capfd):
    logging.set_verbosity_info()
    before = state_of_the_process()

    model = build_model("gpt2", head="causal-lm", **tiny["gpt2"])
    save_folder(model, tmp_path / "folder")
    build_model(folder=tmp_path / "folder", head="causal-lm")
    with pytest.raises(SettingsError):
        build_model("gpt2x")

    after = state_of_the_process()
    logging.set_verbosity_warning()
    assert after == before
    assert capfd.readouterr() == ("", "")


def test_a_request_to_the_hub_is_refused_within_the_block():
    with quiet_and_offline(), pytest.raises(OfflineModeIsEnabled):
        get_session().get("http://localhost:9/never")

    assert not constants.is_offline_mode()
