"""The hook: what the settings of an experiment bring into its pool."""

import json
import subprocess
import sys

import pytest
import torch
import transformers
from pymodules_transformers import build_model, save_folder

from pymodules_core import ModulePool
from pymodules_core.errors import InvalidNameError, PymodulesError, SettingsError

CONFIG = (
    "{ n_layer = 2, n_head = 2, n_embd = 16, n_positions = 16, vocab_size = 50,"
    " bos_token_id = 0, eos_token_id = 0 }"
)
TWO_MODULES = f"""
[plugins.settings.transformers.modules.lm]
model = "gpt2"
head = "causal-lm"
config = {CONFIG}

[plugins.settings.transformers.modules.teacher]
folder = "lm_v1"
head = "causal-lm"
frozen = true
"""


@pytest.fixture
def experiment(write_experiment, tiny, tmp_path):
    """An experiment of one random model, and a frozen one from the data home."""
    saved = build_model("gpt2", head="causal-lm", **tiny["gpt2"])
    save_folder(saved, tmp_path / "data" / "module_ckps" / "lm_v1")
    return write_experiment(TWO_MODULES), saved


def test_models_join_the_pool_under_their_names(experiment):
    path, saved = experiment

    pool = ModulePool.discover(path)

    assert list(pool) == ["lm", "teacher"]
    assert {name: pool.is_frozen(name) for name in pool} == {"lm": False, "teacher": True}
    assert not any(p.requires_grad for p in pool.teacher.parameters())
    assert torch.equal(pool.teacher.lm_head.weight, saved.lm_head.weight)
    assert not torch.equal(pool.lm.lm_head.weight, saved.lm_head.weight)
    assert str(pool.origins["lm"]) == "pymodules-transformers 0.1.0 (transformers)"


def test_weights_follow_from_the_runs_seed_and_the_modules_name(experiment, caplog):
    path, _ = experiment

    first, again, other = (ModulePool.discover(path, seed=seed) for seed in (0, 0, 1))

    weights = [pool.lm.lm_head.weight for pool in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    # The host names what a factory changes around it.
    assert caplog.messages == []


def test_a_file_makes_one_in_one_line(write_experiment, tiny):
    path = write_experiment(
        "",
        lm=f"""
        from pymodules_transformers import build_model

        module = build_model("gpt2", head="causal-lm", **{tiny["gpt2"]})
        settings = {{}}
        """,
    )

    assert type(ModulePool.discover(path).lm).__name__ == "GPT2LMHeadModel"


def test_a_mistake_in_a_file_has_its_line(write_experiment):
    path = write_experiment(
        "",
        lm="""
        from pymodules_transformers import build_model

        module = build_model("gpt2", n_layr=2)
        settings = {}
        """,
    )

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert (caught.value.file.name, caught.value.line) == ("lm.py", 4)
    assert caught.value.closest == "n_layer"


def test_without_settings_nothing_is_provided(write_experiment):
    path = write_experiment(
        "", net="from torch import nn\nmodule = nn.Linear(1, 1)\nsettings = {}\n"
    )

    assert list(ModulePool.discover(path)) == ["net"]


def first_line_of_refusal(path) -> str:
    with pytest.raises(PymodulesError) as caught:
        ModulePool.discover(path)
    return str(caught.value).splitlines()[0].removeprefix(f"{path}/")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            'model = "gpt2"\nhed = "base"',
            "experiment.toml:4: plugins.settings.transformers.modules.lm.hed: unknown key",
        ),
        (
            'model = "gpt2"\nfrozen = "no"',
            "experiment.toml:4: plugins.settings.transformers.modules.lm.frozen: expected bool, "
            "found str 'no'",
        ),
        (
            "frozen = true",
            "experiment.toml:2: plugins.settings.transformers.modules.lm: neither model nor folder "
            "is given",
        ),
        (
            'model = "gpt2"\nfolder = "x"',
            "experiment.toml:3: plugins.settings.transformers.modules.lm.model: both model 'gpt2' "
            "and folder 'x' are given",
        ),
        (
            'folder = "nothing"',
            "plugins.settings.transformers.modules.lm.folder: the folder "
            "{home}/module_ckps/nothing does not exist; folders in {home}/module_ckps: none",
        ),
        (
            'model = "gpt9"',
            "experiment.toml:3: plugins.settings.transformers.modules.lm.model: transformers "
            f"{transformers.__version__} has no model type 'gpt9'",
        ),
    ],
)
def test_settings_that_do_not_hold_are_reported_with_their_place(write_experiment, body, message):
    path = write_experiment(f"\n[plugins.settings.transformers.modules.lm]\n{body}\n")

    assert first_line_of_refusal(path) == message.replace("{home}", str(path.parents[1]))


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/b", "..", ""])
def test_a_folder_is_one_name_in_the_data_home(write_experiment, name):
    path = write_experiment(f'[plugins.settings.transformers.modules.lm]\nfolder = "{name}"\n')

    with pytest.raises(SettingsError, match=r"modules\.lm\.folder: folder .* is not allowed: it "):
        ModulePool.discover(path)


def test_a_place_follows_the_name_that_the_table_has(write_experiment):
    path = write_experiment(
        '[plugins.settings.pymodules-transformers.modules.lm]\nmodel = "gpt2"\nhead = "ctc"\n'
    )

    assert first_line_of_refusal(path).startswith(
        "experiment.toml:3: plugins.settings.pymodules-transformers.modules.lm.head: a gpt2 has no "
    )


@pytest.mark.parametrize("linked", ["", "config.json", "model.safetensors"])
def test_no_link_leads_out_of_the_data_home(experiment, tmp_path, linked):
    path, _ = experiment
    inside = tmp_path / "data" / "module_ckps" / "lm_v1" / linked
    outside = tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)

    with pytest.raises(InvalidNameError, match="leads out of the data home"):
        ModulePool.discover(path)


def test_a_name_that_is_none_for_a_module(write_experiment):
    path = write_experiment('[plugins.settings.transformers.modules.train]\nmodel = "gpt2"\n')

    assert "module name 'train' is an attribute of the module pool" in first_line_of_refusal(path)


def test_the_entry_point_imports_neither_torch_nor_transformers():
    program = (
        "import sys\n"
        "import pymodules_transformers.plugin as plugin\n"
        "plugin.Settings()\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'numpy', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert result.stdout == "[]\n"


def test_a_listing_builds_no_model(experiment):
    path, _ = experiment
    program = (
        "import sys\n"
        "from pymodules_core.cli.main import run\n"
        f"code = run(['list', {str(path)!r}, '--json'])\n"
        "assert code == 0 and not {'torch', 'transformers'} & set(sys.modules)\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": ""},
    )

    assert result.returncode == 0, result.stderr
    modules = {one["name"]: one for one in json.loads(result.stdout)}
    assert {name: one["frozen"] for name, one in modules.items()} == {"lm": False, "teacher": True}
    assert modules["lm"]["origin"]["distribution"] == "pymodules-transformers"
