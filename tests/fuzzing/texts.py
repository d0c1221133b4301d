"""Fuzzing targets that are texts: settings, ``experiment.toml``, overrides, names, module files."""

import json
import math
import random
import tomllib
from pathlib import Path
from typing import Any

from fuzzing.cases import Target
from fuzzing.damage import damage_bytes, damage_tree, nested, strange_text, strange_value

from pymodules_core import Experiment
from pymodules_core.discovery.scan.static_reader import find_settings_line, read_module_file
from pymodules_core.names import (
    check_module_name,
    check_path_name,
    check_pool_name,
    resolve_inside,
)
from pymodules_core.reports.history import read_history
from pymodules_core.run_files import read_run_facts, read_run_file
from pymodules_core.settings import structure_module_settings
from pymodules_core.settings.structure import unstructure
from pymodules_core.settings.toml_text import parse_override

_LOADING = {"strict": False, "rename": {"backbone.": "", "head": "top"}, "skip_mismatched": True}
_SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"frozen": True, "mode": "eval"},
    {"load_weights_from_ckp": {"ckp_name": "resnet.pt", **_LOADING}},
    {
        "load_weights_from_exp": {
            "exp_name": "digits",
            "ckp_pool_name": "epoch_7",
            "module_name": "encoder",
            **_LOADING,
        },
        "compile": {"mode": "max-autotune", "backend": "eager", "dynamic": None},
    },
    {
        "parallel": {"kind": "fsdp", "blocks": ["Block"], "min_block_parameters": 1000},
        "sharded": True,
        "forward_methods": ["encode", "decode"],
        "compile": True,
    },
)

_TOML = """
[experiment]
task = "acme-tasks:segmentation"

[train]
epochs = 3
max_minutes = 1.5
seed = 7
batch_size = 16
device = "cpu"
precision = "bf16"
monitor = "accuracy"
mode = "max"
min_delta = 1e-3
patience = 5
on_nonfinite = "skip"
eval_at_start = false

[optimizers.g]
accumulate = 2
clip_norm = 1.0
schedule = "step"

[checkpoints]
keep_epochs = 3
every_n_steps = 500
asynchronous = false
link = "copy"

[modules]
include = ["enc*", "dec*"]
override = { encoder = "acme-encoders" }

[modules.settings.encoder]
frozen = true

[modules.args.encoder]
width = 64

[plugins]
disable = ["noisy"]
settings.ema = { decay = 0.99, modules = ["encoder"] }

[task]
lr = 1e-3
"""

_MODULE_FILE = b'''# coding: utf-8
"""An encoder."""

from torch import nn
from modules._blocks import Residual

module = nn.Sequential(nn.Linear(2, 3), Residual())

settings = {
    "frozen": True,
    "load_weights_from_exp": {"exp_name": "a", "ckp_pool_name": "best", "module_name": "net"},
}
if settings["frozen"]:
    settings["mode"] = "eval"
'''

_RUN_FILE = {
    "state": "running",
    "epoch": 3,
    "epochs": 10,
    "step": 300,
    "updated": "2026-11-24T12:00:00+00:00",
    "host": "a",
    "process": 1234,
    "modules": [{"name": "net", "frozen": False, "parameters": 12, "weights": None}],
    "best": {"metric": "loss", "value": 0.5, "epoch": 2},
    "metrics": {"loss": 0.5, "accuracy": None},
    "error": None,
    "resumptions": [{"time": "2026-11-24T12:00:00+00:00", "epoch": 1, "step": 100}],
    "plugins": [{"name": "acme:ema", "version": "1.0"}],
}
_METRICS_FILE = b"".join(
    json.dumps(
        {"epoch": n, "step": 100 * n, "phase": phase, "metrics": {"loss": 1 / (n + 1)}}
    ).encode()
    + b"\n"
    for n in range(4)
    for phase in ("train", "eval")
)


class Settings(Target):
    """The ``settings`` dict of a module, and a table laid over it."""

    name, share = "settings", 16_000

    def prepare(self, choice: random.Random) -> object:
        raw, over = (damage_tree(choice.choice(_SETTINGS), choice, _strange_object) for _ in "ab")
        return raw, over if choice.random() < 0.3 else None

    def try_it(self, given: Any) -> None:
        raw, over = given
        settings = structure_module_settings(raw)
        assert_says(unstructure(settings), raw)
        if isinstance(over, dict):
            both = structure_module_settings(raw, overlay=over, overlay_root="modules.settings.net")
            assert_says(unstructure(both), over)


class ExperimentToml(Target):
    """The bytes of ``experiment.toml``."""

    name, share = "experiment.toml", 16_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "pymodules").mkdir()
        self._file = folder / "experiment.toml"

    def prepare(self, choice: random.Random) -> object:
        if choice.random() < 0.5:
            content = damage_bytes(_TOML.encode(), choice)
        else:  # words that belong elsewhere, so that more of it is TOML
            lines = _TOML.splitlines()
            for _ in range(choice.randrange(1, 4)):
                one, other = choice.randrange(len(lines)), choice.randrange(len(lines))
                key, equals, _ = lines[one].partition(" = ")
                value = lines[other].partition(" = ")[2]
                lines[one] = key + equals + value if equals else lines[other]
            content = "\n".join(lines).encode()
        self._file.write_bytes(content)
        return content

    def try_it(self, given: Any) -> None:
        experiment = Experiment.open(self.folder)
        text = given.decode("utf-8-sig").replace("\r\n", "\n")
        assert_says(unstructure(experiment.settings), tomllib.loads(text))


class Overrides(Target):
    """What follows ``-s``."""

    name, share = "-s key=value", 5_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "pymodules").mkdir()

    def prepare(self, choice: random.Random) -> object:
        keys = (
            "train.epochs",
            "train",
            "modules.settings.net.frozen",
            "task.lr",
            "plugins.disable",
        )
        text = f"{choice.choice(keys)}={choice.choice(('3', '[1, 2', 'true', '{a = 1}', '1e999'))}"
        if choice.random() < 0.2:
            text = f"{strange_text(choice)}={strange_text(choice)}"
        return damage_bytes(text.encode("utf-8", "surrogatepass"), choice).decode(errors="ignore")

    def try_it(self, given: Any) -> None:
        key, value = parse_override(given)
        experiment = Experiment.open(self.folder, overrides={key: value})
        found: Any = unstructure(experiment.settings)
        for part in key.split("."):
            found = found[part]
        assert_says(found, value)


class Names(Target):
    """Names of modules, files and pools, with links that lead out of the folder."""

    name, share = "names", 5_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "home" / "inside").mkdir(parents=True)
        (folder / "outside").mkdir()
        (folder / "home" / "link").symlink_to(folder / "outside")
        (folder / "home" / "loop").symlink_to(folder / "home" / "loop")

    def prepare(self, choice: random.Random) -> object:
        kind = choice.choice(("module", "path", "pool", "inside"))
        if choice.random() < 0.2:
            return kind, choice.choice(("net", "link", "loop", "inside", "epoch_12", "last"))
        if choice.random() < 0.1:
            return kind, "epoch_" + choice.choice("0123456789") * choice.randrange(5000)
        return kind, strange_text(choice) + strange_text(choice)

    def try_it(self, given: Any) -> None:
        kind, name = given
        home = self.folder / "home"
        if kind == "module":
            assert check_module_name(name).isidentifier()
            path = home / f"{name}.pt"
        elif kind == "pool":
            path = home / check_pool_name(name)
        else:
            path = home / check_path_name(name, kind="ckp_name")
            if kind == "inside":
                path = resolve_inside(home, name, kind="ckp_name")
                assert (self.folder / "outside") not in (path.resolve(), *path.resolve().parents)
        assert path.parent == home
        assert len(path.parts) == len(home.parts) + 1
        path.exists()  # no name that the system itself refuses


class ModuleFile(Target):
    """The bytes of a module file, read without executing it, as ``list`` does."""

    name, share = "module file", 5_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file = folder / "net.py"

    def prepare(self, choice: random.Random) -> object:
        content = damage_bytes(_MODULE_FILE, choice)
        if choice.random() < 0.1:
            content += choice.choice((b"(" * 200, b"x = " + b"-" * 5000 + b"1", b"if 1:\n" * 120))
        self._file.write_bytes(content)
        return None

    def try_it(self, given: Any) -> None:
        for whole in (True, False):
            read_module_file(self._file, whole=whole)
        find_settings_line(self._file, ("load_weights_from_exp", "exp_name"))


class RunFiles(Target):
    """``run.json`` and ``metrics.jsonl``, which views read: damage costs what is damaged."""

    name, share = "run files", 2_600

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "pymodules").mkdir()
        (folder / "data").mkdir()

    def prepare(self, choice: random.Random) -> object:
        if choice.random() < 0.5:
            run = damage_bytes(json.dumps(_RUN_FILE).encode(), choice)
        else:
            run = json.dumps(damage_tree(_RUN_FILE, choice, strange_value)).encode()
        (self.folder / "data" / "run.json").write_bytes(run)
        (self.folder / "data" / "metrics.jsonl").write_bytes(damage_bytes(_METRICS_FILE, choice))
        return None

    def try_it(self, given: Any) -> None:
        run = read_run_file(self.folder)
        if run is not None:
            assert run.state_on_disk
        read_run_facts(self.folder)
        history = read_history(self.folder)
        assert history.best is None or history.best.epoch >= 0
        for row in history.rows:
            values = (*row.metrics.values(), *row.learning_rates.values())
            assert all(value is None or math.isfinite(value) for value in values)


def _strange_object(choice: random.Random) -> Any:
    """Return a value that a module file may hold, which is any at all."""
    if choice.random() < 0.9:
        return strange_value(choice)
    itself: list[Any] = []
    itself.append(itself)
    return choice.choice((nested(5000), itself, b"x", object(), int, range(3), {1: 2}, {"x"}, 1j))


def assert_says(settings: Any, given: Any) -> None:
    """Assert that settings hold what was written: nothing is dropped, and nothing converted."""
    if isinstance(given, dict):
        assert isinstance(settings, dict), f"{given!r} became {settings!r}"
        for key, value in given.items():
            assert_says(settings[key], value)
    elif isinstance(given, list | tuple):
        assert isinstance(settings, list | tuple), f"{given!r} became {settings!r}"
        assert len(settings) == len(given)
        for one, other in zip(settings, given, strict=True):
            assert_says(one, other)
    elif isinstance(given, int) and isinstance(settings, float) and not isinstance(given, bool):
        assert settings == given
    else:
        assert type(settings) is type(given), f"{given!r} became {settings!r}"
        # NaN is not equal to itself.
        assert repr(settings) == repr(given)


TARGETS = (Settings, ExperimentToml, Overrides, Names, ModuleFile, RunFiles)
