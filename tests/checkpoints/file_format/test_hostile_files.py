"""Files that torch's ``weights_only`` takes and that no state dict is: refused by every reader."""

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hostile_files import entries_of, floods, hostile_files, saved, tensor_with
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TINY_MODULE, write_experiment
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, read_state_dict
from pymodules_core.checkpoints.file_format.pickle_gate import budget_bytes
from pymodules_core.checkpoints.file_format.pickle_walk import PickleWalk
from pymodules_core.checkpoints.file_format.read import read_own_file
from pymodules_core.checkpoints.file_format.state_dict import plain_bytes, same_bytes
from pymodules_core.cli.main import run
from pymodules_core.errors import CheckpointError, CheckpointFileError

GROWTH = """
import sys
from pathlib import Path
from pymodules_core import CheckpointManager, ModulePool, read_state_dict
from pymodules_core.errors import PymodulesError
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
try:
    read_state_dict(Path("warm-up.pt"))
except PymodulesError:
    pass
for file in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    try:
        read_state_dict(Path(file))
    except PymodulesError:
        pass
    print(peak() - before)
"""
HOSTILE = {name: (content, what) for name, content, what in hostile_files()}
FLOODS = {name: (content, what) for name, content, what in floods()}
DTYPES = [
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.float8_e4m3fn,
    torch.complex128,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint64,
    torch.bool,
]
FILE = Path("data/experiments/tiny/data/module_ckps/last/net.pt")


@pytest.mark.parametrize("name", [*HOSTILE, *FLOODS])
def test_it_is_refused_with_what_is_wrong(name, tmp_path):
    content, what = (HOSTILE | FLOODS)[name]
    (tmp_path / "net.pt").write_bytes(content)

    with pytest.raises(CheckpointFileError) as caught:
        read_state_dict(tmp_path / "net.pt")

    assert caught.value.what == what
    assert caught.value.fix


@pytest.mark.parametrize(
    "command",
    [
        ["ckpt", "verify", str(FILE)],
        ["ckpt", "show", "tiny", "last"],
        ["ckpt", "diff", "tiny", "last", "last"],
        ["ckpt", "export", "tiny", "last", "--to", "out"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_every_command_refuses_it(home, capsys, command):
    write_experiment(home)
    FILE.parent.mkdir(parents=True)
    for content, what in HOSTILE.values():
        FILE.write_bytes(content)

        code = run(command)

        output = "".join(capsys.readouterr())
        assert code in {1, 2}
        assert what in output
        assert "Traceback" not in output
        assert not Path("out").exists()


def test_initial_weights_refuse_it(home, capsys):
    settings = {"load_weights_from_ckp": {"ckp_name": "net.pt"}}
    write_experiment(home, modules={"net": TINY_MODULE.replace("{}", str(settings))})
    (home / "module_ckps").mkdir()
    for content, what in HOSTILE.values():
        (home / "module_ckps" / "net.pt").write_bytes(content)

        assert run(["check", "tiny"]) == 2
        assert what in capsys.readouterr().err


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("is_mapped", [False, True], ids=["read", "mapped"])
def test_an_object_of_a_store_that_is_one_is_refused(name, is_mapped, tmp_path):
    content, what = HOSTILE[name]
    (tmp_path / "net.pt").write_bytes(content)

    with pytest.raises(CheckpointFileError) as caught:
        read_own_file(tmp_path / "net.pt", is_mapped=is_mapped)

    assert caught.value.what == what


def test_attributes_that_hide_nothing_are_read_back(tmp_path):
    net = nn.Linear(2, 2)
    net.weight.is_decayed = False
    torch.save(net.state_dict(keep_vars=True), tmp_path / "net.pt")
    torch.save({"w": tensor_with({"origin": "here"})}, tmp_path / "tensor.pt")

    assert read_state_dict(tmp_path / "net.pt")["weight"].is_decayed is False
    assert read_state_dict(tmp_path / "tensor.pt")["w"].origin == "here"


def test_ties_claim_their_bytes_once(tmp_path):
    layer = nn.Linear(1024, 1024)
    torch.save(nn.ModuleList([layer] * 40).state_dict(), tmp_path / "net.pt")

    state = read_state_dict(tmp_path / "net.pt")

    assert len(state) == 80
    assert same_bytes(state["39.weight"], layer.weight.detach())


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**1990), 2**1990)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(min_size=1),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.dictionaries(st.text(), inner).map(OrderedDict)
    ),
    max_leaves=40,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PLAIN)
def test_what_saving_counts_is_no_less_than_what_reading_does(value):
    content = entries_of(saved({"k": value}))["archive/data.pkl"]
    walk = PickleWalk(budget_bytes=plain_bytes({"k": value}, set()))

    walk.follow(content)


def test_every_kind_of_dense_tensor_is_read_back(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    state = {
        **{str(dtype): torch.zeros(3).to(dtype) for dtype in DTYPES},
        "view": whole[1:, ::2],
        "transposed": whole.T,
        "expanded": torch.ones(1).expand(1000),
        "conjugated": torch.tensor([1 + 2j]).conj(),
        "parameter": nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(2),
    }
    torch.save(state, tmp_path / "net.pt")

    found = read_state_dict(tmp_path / "net.pt")

    assert found.keys() == state.keys()
    for key, tensor in state.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].shape == tensor.shape
        assert same_bytes(found[key].resolve_conj(), tensor.resolve_conj())


def test_a_library_that_replaces_torch_load_changes_nothing(tmp_path, monkeypatch):
    torch.save({"w": torch.ones(2)}, tmp_path / "net.pt")
    monkeypatch.setattr(torch, "load", lambda *_, **__: {"w": torch.zeros(2)})

    assert read_state_dict(tmp_path / "net.pt")["w"].tolist() == [1, 1]


def test_reading_takes_no_more_memory_than_it_may(tmp_path):
    files = []
    for number, (content, _) in enumerate((HOSTILE | FLOODS).values()):
        files.append(tmp_path / f"{number}.pt")
        files[-1].write_bytes(content)

    found = subprocess.run(
        [sys.executable, "-c", GROWTH, *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
    )

    growth = [*map(int, found.stdout.split())]
    assert len(growth) == len(files)
    for name, file, grown in zip(HOSTILE | FLOODS, files, growth, strict=True):
        assert grown <= budget_bytes(file), name


@pytest.mark.parametrize(
    "value",
    [[*range(1000, 600_000)], [(number,) for number in range(100_000)], ["ä" * 100] * 9 + ["a"]],
    ids=["numbers", "tuples", "texts"],
)
def test_what_is_saved_as_a_training_state_can_be_read(value, tmp_path):
    pool = ModulePool.from_modules({"net": nn.Linear(2, 2)})
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()
        checkpoints.commit("last", epoch=1, state={"seen": value})

    with CheckpointManager(tmp_path, pool) as checkpoints:
        assert checkpoints.resume().state == {"seen": value}


def test_a_training_state_that_nobody_could_read_is_not_saved(tmp_path):
    pool = ModulePool.from_modules({"net": nn.Linear(2, 2)})
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()

        with pytest.raises(CheckpointError) as caught:
            checkpoints.commit("last", epoch=1, state={"seen": [*range(2_000_000)]})

    assert caught.value.what == (
        "the training state: too many Python numbers, texts and lists: with seen they take over "
        "64 MiB to read back"
    )
    assert caught.value.fix == "keep many numbers in a tensor: torch.tensor(values)"
