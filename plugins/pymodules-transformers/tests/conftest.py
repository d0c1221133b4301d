"""What the tests build from: tiny models, real experiment folders, the plugin as installed."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

PACKAGE = "pymodules-transformers"
ENTRY_POINTS = "[pymodules]\ntransformers = pymodules_transformers.plugin\n"

TINY: dict[str, dict[str, Any]] = {
    "gpt2": {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
        "n_positions": 16,
        "vocab_size": 50,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "bert": {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "max_position_embeddings": 16,
        "vocab_size": 50,
    },
    "vit": {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "image_size": 8,
        "patch_size": 4,
        "num_channels": 1,
        "num_labels": 3,
        "hidden_dropout_prob": 0.1,
    },
    "t5": {
        "num_layers": 2,
        "num_heads": 2,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "vocab_size": 50,
        "decoder_start_token_id": 0,
    },
}


@pytest.fixture(autouse=True)
def installed(tmp_path_factory, monkeypatch) -> None:
    """Put the package's metadata on the path, where it is only on the path and not installed."""
    try:
        importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        site = tmp_path_factory.mktemp("site")
        info = site / "pymodules_transformers-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(ENTRY_POINTS)
        monkeypatch.syspath_prepend(str(site))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> dict[str, dict[str, Any]]:
    """Model type to the fields of a config of a few thousand weights."""
    return TINY


@pytest.fixture
def batches() -> dict[str, dict[str, torch.Tensor]]:
    """Model type to keyword arguments that give a loss with the head of ``heads``."""
    tokens = torch.arange(24).reshape(2, 12) % 50
    return {
        "gpt2": {"input_ids": tokens, "labels": tokens},
        "bert": {"input_ids": tokens, "labels": tokens},
        "vit": {
            "pixel_values": torch.linspace(0, 1, 128).reshape(2, 1, 8, 8),
            "labels": torch.tensor([0, 2]),
        },
        "t5": {"input_ids": tokens, "labels": tokens[:, :5].contiguous()},
    }


@pytest.fixture
def heads() -> dict[str, str]:
    """Model type to a head that it has."""
    return {
        "gpt2": "causal-lm",
        "bert": "masked-lm",
        "vit": "image-classification",
        "t5": "seq2seq-lm",
    }


@pytest.fixture
def write_experiment(tmp_path) -> Callable[..., Path]:
    """Write an experiment into the data home ``tmp_path / "data"``."""

    def write(toml: str, *, task: str = "", name: str = "exp", **modules: str) -> Path:
        path = tmp_path / "data" / "experiments" / name
        (path / "pymodules" / "modules").mkdir(parents=True)
        (path / "experiment.toml").write_text(dedent(toml))
        if task:
            (path / "pymodules" / "task.py").write_text(dedent(task))
        for module, source in modules.items():
            (path / "pymodules" / "modules" / f"{module}.py").write_text(dedent(source))
        return path

    return write
