"""Names of modules, files and pools."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import TINY_MODULE, write_experiment
from torch import nn

from pymodules_core import ModulePool, epoch_pool
from pymodules_core.errors import DuplicateModuleError, InvalidNameError
from pymodules_core.names import (
    RESERVED_MODULE_NAMES,
    check_module_name,
    check_path_name,
    check_pool_name,
    parse_epoch_pool,
    pool_sort_key,
    resolve_inside,
)

FOLDER = "data/experiments/tiny/pymodules/modules"


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        (
            "a-b",
            f"{FOLDER}/a-b.py: module name 'a-b' is not allowed: a module name is a Python "
            "identifier that does not start with '_'\n  fix: name it 'a_b'",
        ),
        (
            "a.b",
            f"{FOLDER}/a.b.py: module name 'a.b' is not allowed: a module name is a Python "
            "identifier that does not start with '_'\n  fix: name it 'a_b'",
        ),
        (
            "class",
            f"{FOLDER}/class.py: module name 'class' is not allowed: a module name is a Python "
            "identifier that does not start with '_'\n  fix: name it 'class_module'",
        ),
        (
            "2nd",
            f"{FOLDER}/2nd.py: module name '2nd' is not allowed: a module name is a Python "
            "identifier that does not start with '_'\n  fix: name it 'm2nd'",
        ),
        (
            "train",
            f"{FOLDER}/train.py: module name 'train' is an attribute of the module pool\n"
            "  fix: name it 'train_net'",
        ),
        (
            "con",
            f"{FOLDER}/con.py: module name 'con' is not allowed: the name is reserved on Windows\n"
            "  fix: use one plain name of letters, digits, '_', '-' and '.'",
        ),
        (
            "\ufb01lter",
            f"{FOLDER}/\ufb01lter.py: module name '\ufb01lter' is not in Unicode form NFKC, so "
            "file and attribute would differ\n  fix: name it 'filter'",
        ),
    ],
)
def test_a_file_whose_name_is_not_a_module_name_is_refused(tmp_path, monkeypatch, stem, message):
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path / "data", modules={"net": TINY_MODULE, stem: TINY_MODULE})

    with pytest.raises(InvalidNameError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == message


def test_names_that_differ_only_in_case_are_refused(tmp_path):
    path = write_experiment(tmp_path, modules={"Net": TINY_MODULE, "net": TINY_MODULE})

    with pytest.raises(DuplicateModuleError) as caught:
        ModulePool.discover(path)

    assert str(caught.value) == (
        "module names 'Net' and 'net' differ only in case: some file systems hold them for one\n"
        "  fix: rename one of them"
    )


def test_every_public_attribute_of_a_module_dict_is_reserved():
    empty = nn.ModuleDict()
    names = {
        name
        for name in dir(empty)
        if not name.startswith("_")
        # transformers, once imported, gives every module a `smart_apply`.
        and "transformers" not in (getattr(getattr(empty, name), "__module__", None) or "")
    }

    assert names <= RESERVED_MODULE_NAMES


@pytest.mark.parametrize("name", ["encoder", "Encoder2", "größe", "x"])
def test_identifiers_are_module_names(name):
    assert check_module_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        (".", "it names a folder's parent or itself"),
        ("..", "it names a folder's parent or itself"),
        ("../x", "it holds a path separator"),
        ("/etc/x", "it holds a path separator"),
        ("a\\b", "it holds a path separator"),
        ("C:x", "it starts with a drive"),
        ("a\0b", "it holds a control character"),
        ("a\nb", "it holds a control character"),
        ("-rf", "a leading '-' reads as an option"),
        (".hidden", "a leading '.' hides it"),
        ("x.", "a trailing dot or space is lost on some file systems"),
        ("x ", "a trailing dot or space is lost on some file systems"),
        ("NUL.pt", "the name is reserved on Windows"),
        ("aux .pt", "the name is reserved on Windows"),
        ("com¹", "the name is reserved on Windows"),
        ("CONIN$", "the name is reserved on Windows"),
        ("a*b", "some file systems take no '*'"),
        ("run:2.pt", "some file systems take no ':'"),
        (" x", "it begins or ends with a space"),
        ("e\u0301", "it is not in Unicode form NFC, so another name would look the same"),
        ("a\udcff", "it holds a control character"),
        ("x" * 201, "it is longer than 200 bytes"),
        ("ü" * 101, "it is longer than 200 bytes"),
    ],
)
def test_a_name_that_is_not_a_plain_file_name_is_refused(name, reason):
    with pytest.raises(InvalidNameError) as caught:
        check_path_name(name, kind="ckp_name")

    shown = name if len(name) <= 80 else f"{name[:80]}…"
    assert str(caught.value) == (
        f"ckp_name {shown!r} is not allowed: {reason}\n"
        "  fix: use one plain name of letters, digits, '_', '-' and '.'"
    )


@given(st.text(max_size=40))
def test_an_allowed_name_stays_inside_its_folder(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "root"
    try:
        check_path_name(name, kind="name")
    except InvalidNameError:
        return

    path = resolve_inside(root, name, kind="name")

    assert path.parent == root
    assert path.name == name


def test_a_link_that_leads_out_of_the_data_home_is_refused(tmp_path):
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    (home / "link").symlink_to(outside)
    (tmp_path / "alias").symlink_to(home)

    with pytest.raises(InvalidNameError) as caught:
        resolve_inside(home, "link", "x.pt", kind="ckp_name")

    assert str(caught.value) == (
        f"{home}/link/x.pt leads out of the data home, to {outside}/x.pt\n"
        f"  fix: copy it below {home} instead of linking to it"
    )
    # The home itself may be a link.
    assert resolve_inside(tmp_path / "alias", "x.pt", kind="ckp_name").name == "x.pt"


@given(st.integers(min_value=1, max_value=10**9))
def test_epoch_pools_round_trip(epoch):
    assert parse_epoch_pool(epoch_pool(epoch)) == epoch
    assert check_pool_name(epoch_pool(epoch)) == epoch_pool(epoch)


@pytest.mark.parametrize(
    "name", ["epoch_0", "epoch_01", "epoch_-1", "epoch_1.0", "epoch_", "epoch"]
)
def test_other_spellings_are_no_epoch_pools(name):
    assert parse_epoch_pool(name) is None


def test_pools_sort_as_a_run_writes_them():
    names = ["epoch_10", "best", "epoch_9", "init", "last", "frzn"]

    assert sorted(names, key=pool_sort_key) == [
        "frzn",
        "init",
        "last",
        "best",
        "epoch_9",
        "epoch_10",
    ]
