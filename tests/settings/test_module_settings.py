"""The ``settings`` dict of a module file: what it may hold, and the message for all else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import TINY_MODULE, write_experiment

from pymodules_core import ModulePool, ModuleSettings
from pymodules_core.errors import InvalidNameError, SettingsError
from pymodules_core.settings import structure, structure_module_settings
from pymodules_core.settings.structure import unstructure
from pymodules_core.training.parallel.planning import check_forward_methods

FILE = "data/experiments/tiny/pymodules/modules/net.py"
TOML = "data/experiments/tiny/experiment.toml"
FROM_EXP = {"exp_name": "a", "ckp_pool_name": "best", "module_name": "net"}

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).map(lambda name: f"x{name}")
load_options = {
    "strict": st.booleans(),
    "rename": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    "skip_mismatched": st.booleans(),
}
valid_settings = st.fixed_dictionaries(
    {},
    optional={"frozen": st.booleans(), "mode": st.sampled_from(["train", "eval"])},
).flatmap(
    lambda common: st.one_of(
        st.just(common),
        st.fixed_dictionaries({"ckp_name": names}, optional=load_options).map(
            lambda table: common | {"load_weights_from_ckp": table}
        ),
        st.fixed_dictionaries(
            {
                "exp_name": names,
                "ckp_pool_name": st.sampled_from(["frzn", "init", "last", "best", "epoch_12"]),
                "module_name": names,
            },
            optional=load_options,
        ).map(lambda table: common | {"load_weights_from_exp": table}),
    )
)


def with_settings(home, settings, toml=""):
    """Write an experiment whose one module has these settings, as source."""
    source = TINY_MODULE.replace("settings = {}", f"settings = {settings}")
    return write_experiment(home, modules={"net": source}, toml=toml)


@given(valid_settings)
def test_valid_settings_round_trip(raw):
    settings = structure_module_settings(raw)

    assert structure(unstructure(settings), ModuleSettings, root="") == settings
    assert settings.frozen == raw.get("frozen", False)
    assert settings.mode == raw.get("mode", "train")


@given(valid_settings)
def test_an_empty_overlay_changes_nothing_and_a_full_one_wins(raw):
    settings = structure_module_settings(raw)

    assert structure_module_settings(raw, overlay={}) == settings
    assert structure_module_settings({"frozen": True}, overlay={"frozen": False, **raw}) == settings


def test_a_module_trains_unless_its_settings_say_otherwise():
    settings = structure_module_settings({})

    assert settings == ModuleSettings(frozen=False, mode="train")
    assert settings.weights_source is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "['frozen']",
            f"{FILE}:5: settings: expected dict, found list ['frozen']\n"
            "  fix: write a table of keys and values",
        ),
        (
            "None",
            f"{FILE}:5: settings: expected dict, found NoneType None\n"
            "  fix: write a table of keys and values",
        ),
        (
            '{\n    "frozn": True,\n}',
            f"{FILE}:6: settings.frozn: unknown key\n"
            "  closest match: frozen\n"
            "  fix: write 'frozen' or remove 'frozn'",
        ),
        (
            '{"learning_speed": 1}',
            f"{FILE}:5: settings.learning_speed: unknown key\n"
            "  fix: known keys: frozen, mode, compile, parallel, sharded, forward_methods, "
            "load_weights_from_ckp, load_weights_from_exp",
        ),
        ("{3: True}", f"{FILE}:5: settings: expected keys of type str, found int 3"),
        (
            '{"frozen": "true"}',
            f"{FILE}:5: settings.frozen: expected bool, found str 'true'\n"
            "  fix: write True or False (true or false in TOML), unquoted",
        ),
        (
            '{"frozen": 1}',
            f"{FILE}:5: settings.frozen: expected bool, found int 1\n"
            "  fix: write True or False (true or false in TOML), unquoted",
        ),
        (
            '{"frozen": "' + "x" * 500 + '"}',
            f"{FILE}:5: settings.frozen: expected bool, found str '{'x' * 59}…\n"
            "  fix: write True or False (true or false in TOML), unquoted",
        ),
        (
            '{"mode": "evaluate"}',
            f"{FILE}:5: settings.mode: expected one of 'train', 'eval', found str 'evaluate'\n"
            "  fix: write 'eval'",
        ),
        (
            '{"load_weights_from_ckp": "net.pt"}',
            f"{FILE}:5: settings.load_weights_from_ckp: expected dict, found str 'net.pt'\n"
            "  fix: write a table of keys and values",
        ),
        (
            '{\n    "load_weights_from_exp": {\n        "exp_name": "a",\n'
            '        "module_name": "net",\n    },\n}',
            f"{FILE}:6: settings.load_weights_from_exp.ckp_pool_name: is missing\n"
            "  fix: add 'ckp_pool_name'",
        ),
        (
            '{"load_weights_from_ckp": {"ckp": "net.pt"}}',
            f"{FILE}:5: settings.load_weights_from_ckp.ckp_name: is missing\n"
            "  also: settings.load_weights_from_ckp.ckp: unknown key\n"
            "  fix: add 'ckp_name'",
        ),
        (
            '{"load_weights_from_ckp": {"ckp_name": 3}}',
            f"{FILE}:5: settings.load_weights_from_ckp.ckp_name: expected str, found int 3\n"
            "  fix: write a text in quotes",
        ),
        (
            '{"load_weights_from_ckp": {"ckp_name": "a.pt", "rename": {"old": None}}}',
            f"{FILE}:5: settings.load_weights_from_ckp.rename.old: expected str, found NoneType "
            "None\n  fix: write a text in quotes",
        ),
        (
            '{\n    "load_weights_from_ckp": {"ckp_name": "a.pt"},\n    "load_weights_from_exp": {'
            '"exp_name": "a", "ckp_pool_name": "best", "module_name": "b"},\n}',
            f"{FILE}:7: settings: both load_weights_from_ckp and load_weights_from_exp are given\n"
            "  fix: keep the one the weights should come from",
        ),
        (
            '{"frozn": True, "mode": 3}',
            f"{FILE}:5: settings.mode: expected one of 'train', 'eval', found int 3\n"
            "  also: settings.frozn: unknown key",
        ),
    ],
    ids=[
        "a list",
        "None",
        "misspelt key",
        "unknown key",
        "key no text",
        "text for a bool",
        "number for a bool",
        "long value",
        "unknown mode",
        "text for a table",
        "missing key",
        "missing and unknown key",
        "number for a text",
        "rename no text",
        "two sources",
        "two problems",
    ],
)
def test_wrong_settings_get_one_message_and_nothing_is_written(home, settings, message):
    path = with_settings(home, settings)

    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == message
    assert not (path / "data").exists()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("load_weights_from_ckp.ckp_name", "../net.pt", "it holds a path separator"),
        ("load_weights_from_ckp.ckp_name", "/net.pt", "it holds a path separator"),
        ("load_weights_from_ckp.ckp_name", "a\\b.pt", "it holds a path separator"),
        ("load_weights_from_ckp.ckp_name", "C:net.pt", "it starts with a drive"),
        ("load_weights_from_ckp.ckp_name", "a\0b.pt", "it holds a control character"),
        ("load_weights_from_ckp.ckp_name", "", "it is empty"),
        ("load_weights_from_exp.exp_name", "..", "it names a folder's parent or itself"),
        ("load_weights_from_exp.exp_name", "../gan", "it holds a path separator"),
        ("load_weights_from_exp.exp_name", "gan.", "a trailing dot or space is lost on some file "
         "systems"),
    ],
)  # fmt: skip
def test_a_name_that_may_lead_elsewhere_is_refused_with_key_and_line(home, key, value, reason):
    table, name = key.split(".")
    given_table = {**FROM_EXP, name: value} if name == "exp_name" else {name: value}
    path = with_settings(home, {table: given_table})

    with pytest.raises(InvalidNameError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        f"{FILE}:5: settings.{key}: {name} {value!r} is not allowed: {reason}\n"
        "  fix: use one plain name of letters, digits, '_', '-' and '.'"
    )
    assert caught.value.key == f"settings.{key}"


@pytest.mark.parametrize(
    ("pool", "closest"),
    [("bset", "best"), ("epoch_x", "epoch_1"), ("epoch_0", "epoch_1"), ("../best", "best")],
)
def test_an_unknown_pool_is_reported_with_the_closest(home, pool, closest):
    path = with_settings(home, {"load_weights_from_exp": {**FROM_EXP, "ckp_pool_name": pool}})

    with pytest.raises(InvalidNameError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        f"{FILE}:5: settings.load_weights_from_exp.ckp_pool_name: unknown checkpoint pool "
        f"{pool!r}; pools are frzn, init, last, best and epoch_<n>\n"
        f"  closest match: {closest}\n"
        f"  fix: write {closest!r}"
    )


def test_a_module_name_in_settings_follows_the_identifier_rule(home):
    path = with_settings(home, {"load_weights_from_exp": {**FROM_EXP, "module_name": "../net"}})

    with pytest.raises(InvalidNameError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        f"{FILE}:5: settings.load_weights_from_exp.module_name: module name '../net' is not "
        "allowed: a module name is a Python identifier that does not start with '_'\n"
        "  fix: name it 'net'"
    )


def test_a_forward_method_that_the_module_lacks_is_reported_with_its_line(home):
    pool = ModulePool.discover(with_settings(home, {"forward_methods": ["encode"]}))

    with pytest.raises(SettingsError) as caught:
        check_forward_methods(pool, "net")

    assert str(caught.value) == (
        f"{FILE}:5: modules.settings.net.forward_methods: Linear has no method 'encode' besides "
        "forward\n  fix: name methods of the module that train it"
    )


def test_the_facts_of_an_error_are_attributes():
    with pytest.raises(SettingsError) as caught:
        structure_module_settings({"frozen": "no"})

    error = caught.value
    assert (error.key, error.found, error.file, error.line) == ("settings.frozen", "no", None, None)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("toml", "error", "message"),
    [
        (
            "[train]\nepochs = 1\n\n[modules.settings.net]\nfrozen = 'no'\n",
            SettingsError,
            f"{TOML}:5: modules.settings.net.frozen: expected bool, found str 'no'\n"
            "  fix: write True or False (true or false in TOML), unquoted",
        ),
        (
            "[modules.settings.net]\nfrozn = true\n",
            SettingsError,
            f"{TOML}:2: modules.settings.net.frozn: unknown key\n"
            "  closest match: frozen\n"
            "  fix: write 'frozen' or remove 'frozn'",
        ),
        (
            '[modules.settings.net.load_weights_from_ckp]\nckp_name = "../a.pt"\n',
            InvalidNameError,
            f"{TOML}:2: modules.settings.net.load_weights_from_ckp.ckp_name: ckp_name '../a.pt' is "
            "not allowed: it holds a path separator\n"
            "  fix: use one plain name of letters, digits, '_', '-' and '.'",
        ),
        (
            '[modules.settings.net]\nload_weights_from_ckp = {ckp_name = "a.pt"}\n'
            '[modules.settings.net.load_weights_from_exp]\nexp_name = "a"\nckp_pool_name = "best"\n'
            'module_name = "b"\n',
            SettingsError,
            f"{TOML}:3: modules.settings.net: both load_weights_from_ckp and load_weights_from_exp "
            "are given\n"
            "  fix: keep the one the weights should come from",
        ),
        (
            "[modules.settings.nat]\nfrozen = true\n",
            SettingsError,
            f"{TOML}:1: modules.settings.nat: no module is called 'nat'; there are: net\n"
            "  closest match: net\n"
            "  fix: write 'net'",
        ),
    ],
    ids=["wrong type", "misspelt key", "bad name", "two sources", "unknown module"],
)
def test_the_experiments_table_is_checked_with_its_own_line(home, toml, error, message):
    path = with_settings(home, {}, toml)

    with pytest.raises(error) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == message


def test_a_source_of_weights_in_the_overlay_replaces_the_modules_own():
    settings = structure_module_settings(
        {"load_weights_from_ckp": {"ckp_name": "a.pt"}},
        overlay={"load_weights_from_exp": {**FROM_EXP, "exp_name": "b"}},
    )

    assert settings.load_weights_from_ckp is None
    assert settings.weights_text == "b/best/net"
