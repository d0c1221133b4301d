"""``experiment.toml`` and the overrides of the command line."""

import datetime
import gc
import os
import weakref
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import TINY_TASK, write_experiment

from pymodules_core import Experiment, ModulePool
from pymodules_core.cli.main import run
from pymodules_core.errors import SettingsError
from pymodules_core.settings import ExperimentSettings, structure
from pymodules_core.settings.structure import unstructure
from pymodules_core.settings.toml_text import parse_override

FILE = "data/experiments/tiny/experiment.toml"


def open_with(home, toml, **overrides):
    return Experiment.open(write_experiment(home, toml=toml), overrides=overrides)


def test_every_key_is_optional_and_so_is_the_file(home):
    path = write_experiment(home, toml="")
    (path / "experiment.toml").unlink()

    assert Experiment.open(path).settings == ExperimentSettings()


@given(
    st.builds(
        lambda **train: {"train": train},
        epochs=st.integers(0, 10**9),
        seed=st.integers(0, 2**63 - 1),
        min_delta=st.floats(0, allow_nan=False, allow_infinity=False),
        patience=st.none() | st.integers(1, 99),
        precision=st.sampled_from(["fp32", "bf16", "fp16"]),
        eval_at_start=st.booleans(),
    ),
    st.integers(1, 99) | st.just("all"),
)
def test_valid_settings_round_trip(data, keep_epochs):
    settings = structure(
        {**data, "checkpoints": {"keep_epochs": keep_epochs}}, ExperimentSettings, root=""
    )

    assert structure(unstructure(settings), ExperimentSettings, root="") == settings
    assert attrs.asdict(settings.train).items() >= data["train"].items()


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            "[train]\nepochs = -1\n",
            f"{FILE}:2: train.epochs: expected int at least 0, found int -1",
        ),
        (
            "[train]\nepochs = 2.0\n",
            f"{FILE}:2: train.epochs: expected int, found float 2.0\n"
            "  fix: write a whole number, unquoted",
        ),
        (
            "[train]\nmin_delta = nan\n",
            f"{FILE}:2: train.min_delta: expected a finite number, found float nan",
        ),
        (
            "[train]\nmax_minutes = 0\n",
            f"{FILE}:2: train.max_minutes: expected float more than 0, found int 0",
        ),
        (
            '[train]\nepochs = "3"\n',
            f"{FILE}:2: train.epochs: expected int, found str '3'\n"
            "  fix: write a whole number, unquoted",
        ),
        (
            "[train]\nepochs = true\n",
            f"{FILE}:2: train.epochs: expected int, found bool True\n"
            "  fix: write a whole number, unquoted",
        ),
        (
            '[train]\neval_at_start = "true"\n',
            f"{FILE}:2: train.eval_at_start: expected bool, found str 'true'\n"
            "  fix: write True or False (true or false in TOML), unquoted",
        ),
        (
            '[train]\nmode = "maximum"\n',
            f"{FILE}:2: train.mode: expected one of 'min', 'max', found str 'maximum'\n"
            "  fix: write 'max'",
        ),
        (
            "[train]\n# how long\nepoch = 3\n",
            f"{FILE}:3: train.epoch: unknown key\n"
            "  closest match: epochs\n  fix: write 'epochs' or remove 'epoch'",
        ),
        (
            "train = {epoch = 3}\n",
            f"{FILE}:1: train.epoch: unknown key\n"
            "  closest match: epochs\n  fix: write 'epochs' or remove 'epoch'",
        ),
        (
            "[trian]\nepochs = 3\n",
            f"{FILE}:1: trian: unknown key\n"
            "  closest match: train\n  fix: write 'train' or remove 'trian'",
        ),
        (
            "train = 3\n",
            f"{FILE}:1: train: expected dict, found int 3\n  fix: write a table of keys and values",
        ),
        (
            "[[train]]\nepochs = 3\n",
            f"{FILE}:1: train: expected dict, found list [{{'epochs': 3}}]\n"
            "  fix: write a table of keys and values",
        ),
        (
            "[optimizers.d]\nclip_nrm = 1.0\n",
            f"{FILE}:2: optimizers.d.clip_nrm: unknown key\n"
            "  closest match: clip_norm\n  fix: write 'clip_norm' or remove 'clip_nrm'",
        ),
        (
            '[checkpoints]\nkeep_epochs = "al"\n',
            f"{FILE}:2: checkpoints.keep_epochs: expected one of 'all', found str 'al'\n"
            "  fix: write 'all'",
        ),
        (
            '[modules]\ninclude = "encoder"\n',
            f"{FILE}:2: modules.include: expected a list of str, found str 'encoder'\n"
            '  fix: write a list such as ["encoder"]',
        ),
        (
            "[plugins.settings]\nema = 3\n",
            f"{FILE}:2: plugins.settings.ema: expected dict, found int 3\n"
            "  fix: write a table of keys and values",
        ),
        (
            "[train]\nepochs = -1\nseed = -2\nmonitor = 3\n",
            f"{FILE}:2: train.epochs: expected int at least 0, found int -1\n"
            "  also: train.seed: expected int at least 0, found int -2\n"
            "  also: train.monitor: expected str, found int 3",
        ),
        (
            "[train]\nepochs = 3\nbatch_size\n",
            f"{FILE}:3: not valid TOML (column 11): Expected '=' after a key in a key/value pair\n"
            "  fix: write [table] and key = value, a line each; see https://toml.io",
        ),
        (
            "[train]\neval_at_start = True\n",
            f"{FILE}:2: not valid TOML (column 17): Invalid value\n"
            "  fix: texts need quotes, and true and false are lower case",
        ),
        (
            "[train]\nseed = 9223372036854775808\n",
            f"{FILE}:2: train.seed: expected an int of 64 bits, found int 9223372036854775808",
        ),
        (
            f"[train]\nmax_minutes = {'9' * 400}\n",
            f"{FILE}:2: train.max_minutes: expected a finite number, found int {'9' * 60}…",
        ),
        (
            "[task]\nbegin = 2024-01-01\n",
            f"{FILE}:2: task.begin: expected a text, number, bool, list or dict, found date "
            "datetime.date(2024, 1, 1)\n  fix: write it in quotes",
        ),
        (
            "[modules.args.net]\nsizes = [1, {at = 07:32:00}]\n",
            f"{FILE}:2: modules.args.net.sizes.1.at: expected a text, number, bool, list or dict, "
            "found time datetime.time(7, 32)\n  fix: write it in quotes",
        ),
        (
            '"" = 1\n',
            f'{FILE}:1: "": unknown key\n  fix: known keys: experiment, train, optimizers, '
            "checkpoints, modules, plugins, task",
        ),
        (
            "\ufeff[train]\nsed = 1\n",
            f"{FILE}:2: train.sed: unknown key\n"
            "  closest match: seed\n  fix: write 'seed' or remove 'sed'",
        ),
        (
            f"[train]\nseed = {'9' * 5000}\n",
            f"{FILE}: has a whole number of more than 4,300 digits\n  fix: write a smaller one",
        ),
        (
            f"x = {'[' * 3000}\n",
            f"{FILE}: nests too deep to be read\n  fix: write fewer brackets in brackets",
        ),
        (
            "[train]\nseed = 007\n",
            f"{FILE}:2: not valid TOML (column 9): Expected newline or end of document after a "
            "statement\n  fix: write [table] and key = value, a line each; see https://toml.io",
        ),
        (
            '[task]\nroot = "C:\\Users"\n',
            f"{FILE}:2: not valid TOML (column 13): Invalid hex value\n"
            "  fix: write [table] and key = value, a line each; see https://toml.io",
        ),
        (
            '[train]\nmonitor = "loss\n',
            f"{FILE}:2: not valid TOML (column 16): Illegal character '\\n'\n"
            "  fix: write [table] and key = value, a line each; see https://toml.io",
        ),
        (
            "[train\nseed = 1\n",
            f"{FILE}:1: not valid TOML (column 7): Expected ']' at the end of a table declaration"
            "\n  fix: write [table] and key = value, a line each; see https://toml.io",
        ),
        (
            '{"train": {}}\n',
            f"{FILE}:1: not valid TOML (column 1): Invalid statement\n"
            "  fix: write [table] and key = value, a line each; see https://toml.io",
        ),
        (
            "[train]\nseed = 1\n[train]\nseed = 2\n",
            f"{FILE}:3: not valid TOML (column 7): Cannot declare ('train',) twice\n"
            "  fix: write each key and each table once",
        ),
        (
            "[train]\nseed = 1\nseed = 2",
            f"{FILE}:3: not valid TOML: Cannot overwrite a value\n"
            "  fix: write each key and each table once",
        ),
    ],
    ids=lambda value: value[:40].replace("\n", " ") if not value.startswith(FILE) else "",
)
def test_a_wrong_experiment_file_gets_one_message_and_nothing_is_written(home, toml, message):
    path = write_experiment(home, toml=toml)

    with pytest.raises(SettingsError) as caught:
        Experiment.open(path)

    assert str(caught.value) == message
    assert not (path / "data").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[train]\nseed = 1 # \xff\n", f"{FILE}: not UTF-8 text: byte 19"),
        ("[train]\nseed = 1\n".encode("utf-16-le"), f"{FILE}:1: not UTF-8 text: a NUL byte"),
        (b"[train]\nseed = 1\0\n", f"{FILE}:2: not UTF-8 text: a NUL byte"),
    ],
)
def test_a_file_that_is_not_text_is_reported(home, content, message):
    path = write_experiment(home)
    (path / "experiment.toml").write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        Experiment.open(path)

    assert str(caught.value) == f"{message}\n  fix: save it as UTF-8"


def test_a_byte_order_mark_is_not_an_error(home):
    path = write_experiment(home)
    (path / "experiment.toml").write_bytes(b"\xef\xbb\xbf[train]\nseed = 5\n")

    assert Experiment.open(path).settings.train.seed == 5


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (Path.mkdir, "is not a regular file"),
        (os.mkfifo, "is not a regular file"),
        (lambda file: file.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda file: file.symlink_to("gone.toml"), "is a link to nothing"),
        (
            lambda file: file.symlink_to(file.name),
            "cannot be read: Too many levels of symbolic links",
        ),
    ],
    ids=["folder", "pipe", "device", "link to nothing", "links in a circle"],
)
def test_what_is_not_a_file_is_reported_and_not_waited_for(home, capsys, make, fault):
    path = write_experiment(home)
    (path / "experiment.toml").unlink()
    make(path / "experiment.toml")

    codes = [run([command, "tiny"]) for command in ("train", "list")]

    assert codes == [2, 2]
    assert (
        capsys.readouterr().err == f"error: {FILE}: {fault}\n  fix: make it a readable file\n" * 2
    )
    assert not (path / "data").exists()


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.epochs=3", "train.epochs", 3),
        ("train.device=cpu", "train.device", "cpu"),
        ('train.device="cpu"', "train.device", "cpu"),
        ("modules.include=['a*']", "modules.include", ["a*"]),
        ("task.name=a=b", "task.name", "a=b"),
        (" task.on = true", "task.on", True),
    ],
)
def test_an_override_is_a_dotted_key_and_a_toml_value(text, key, value):
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("train.epochs", "has no value"),
        ("", "has no value"),
        ("=3", "lacks a part of its key"),
        (" =3", "lacks a part of its key"),
        ("train..epochs=3", "lacks a part of its key"),
        ("train.=3", "lacks a part of its key"),
        (".epochs=3", "lacks a part of its key"),
    ],
)
def test_an_override_without_key_or_value_is_refused(text, fault):
    with pytest.raises(SettingsError) as caught:
        parse_override(text)

    assert str(caught.value) == (
        f"override {text!r} {fault}\n  fix: write key=value: train.epochs=3"
    )


@pytest.mark.parametrize("value", ["1\ntrain.seed=4", "1\n[task]", "9" * 5000, "[" * 3000, '"3'])
def test_a_value_of_an_override_that_is_not_one_toml_value_is_a_text(value):
    assert parse_override(f"task.x={value}") == ("task.x", value)


def test_overrides_are_laid_over_the_file_and_kept(home):
    experiment = open_with(
        home, "[train]\nepochs = 3\nseed = 4\n", **{"train.epochs": 9, "task.lr": 0.5}
    )

    assert (experiment.settings.train.epochs, experiment.settings.train.seed) == (9, 4)
    assert experiment.settings.task == {"lr": 0.5}
    assert experiment.overrides == {"train.epochs": 9, "task.lr": 0.5}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "train.epchs",
            3,
            "override train.epchs: unknown key\n"
            "  closest match: epochs\n  fix: write 'epochs' or remove 'epchs'",
        ),
        (
            "train.epochs",
            "three",
            "override train.epochs: expected int, found str 'three'\n"
            "  fix: write a whole number, unquoted",
        ),
        (
            "task.begin",
            datetime.date(2024, 1, 1),
            "override task.begin: expected a text, number, bool, list or dict, found date "
            "datetime.date(2024, 1, 1)\n"
            "  fix: write it in quotes",
        ),
        (
            "train.epochs.x",
            3,
            "override 'train.epochs.x': 'epochs' is a value, no table\n"
            "  fix: name a key of a table: train.epochs=3",
        ),
    ],
)
def test_a_wrong_override_is_reported_as_one(home, key, value, message):
    with pytest.raises(SettingsError) as caught:
        open_with(home, "[train]\nepochs = 3\n", **{key: value})

    assert str(caught.value) == message


def test_the_command_exits_with_2_and_writes_nothing(home, capsys):
    path = write_experiment(home, toml="[train]\nepoch = 3\n")

    code = run(["train", "tiny"])

    assert code == 2
    assert capsys.readouterr().err == (
        f"error: {FILE}:2: train.epoch: unknown key\n"
        "  closest match: epochs\n"
        "  fix: write 'epochs' or remove 'epoch'\n"
    )
    assert not (path / "data").exists()


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            '[modules]\ninclude = ["net", "foo*"]\n',
            "modules.include: 'foo*' matches no module; there are: net",
        ),
        (
            '[modules]\nexclude = ["foo"]\n',
            "modules.exclude: 'foo' matches no module; there are: net",
        ),
        ('[plugins]\ndisable = ["foo"]\n', "plugins.disable: 'foo' matches no plugin; there are: "),
        ('[plugins]\nallow = ["foo*"]\n', "plugins.allow: 'foo*' matches no plugin; there are: "),
    ],
    ids=["include", "exclude", "disable", "allow"],
)
def test_a_pattern_that_matches_nothing_is_reported(home, caplog, toml, message):
    pool = ModulePool.discover(open_with(home, toml))

    assert "net" in pool
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(message)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            '[modules.override]\nnet = "acme"\n',
            f"{FILE}:2: modules.override.net: 'acme' provides no module 'net'; "
            "its providers are: files\n"
            "  fix: pip install acme, or remove it there",
        ),
        (
            '[modules.override]\nnat = "files"\n',
            f"{FILE}:2: modules.override.nat: no module is called 'nat'; there are: net\n"
            "  closest match: net\n"
            "  fix: write 'net'",
        ),
        (
            "[modules.args.nett]\nwidth = 3\n",
            f"{FILE}:1: modules.args.nett: no module is called 'nett'; there are: net\n"
            "  closest match: net\n"
            "  fix: write 'net'",
        ),
        (
            "[modules]\nexclude = ['net']\n",
            f"{FILE}:2: modules.exclude: no module in the pool of experiment 'tiny'\n"
            "  fix: let [modules] include and exclude leave one of: net",
        ),
    ],
    ids=["no such provider", "override of nothing", "arguments for nothing", "all excluded"],
)
def test_a_table_that_names_no_module_is_refused(home, toml, message):
    path = write_experiment(home, toml=toml)

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == message


def test_a_config_class_types_the_task_table(home, capsys):
    config = "\n\nimport attrs\n\n@attrs.frozen\nclass Config:\n    lr: float = 0.1\n"
    path = write_experiment(home, task=TINY_TASK + config, toml="[task]\nlearn = 1\nlr = nan\n")

    code = run(["train", "tiny"])

    assert code == 2
    assert capsys.readouterr().err == (
        f"error: {FILE}:3: task.lr: expected a finite number, found float nan\n"
        "  also: task.learn: unknown key\n"
    )
    assert not (path / "data").exists()


def test_a_class_of_a_task_is_not_kept():
    def structure_and_forget():
        @attrs.frozen
        class Config:
            rate: float = 0.1
            names: dict[str, int | None] = attrs.field(factory=dict)

        config = structure({"rate": 1, "names": {"a": 2}}, Config, root="task")
        assert (config.rate, config.names) == (1.0, {"a": 2})
        return weakref.ref(Config)

    reference = structure_and_forget()
    gc.collect()

    assert reference() is None
