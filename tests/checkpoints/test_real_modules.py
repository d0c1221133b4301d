"""Modules that nobody here wrote: saved, loaded, compared and exported unchanged."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, weight_norm

from pymodules_core import (
    LAST,
    CheckpointManager,
    ModulePool,
    PoolReader,
    apply_weights,
    epoch_pool,
    match_weights,
    read_state_dict,
)
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.tools.comparison import compare_modules
from pymodules_core.checkpoints.tools.export import ExportFormat, export_modules
from pymodules_core.errors import CheckpointError


def gpt2() -> nn.Module:
    import transformers  # 5 s: only where it is used

    config = transformers.GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=16,
        n_positions=16,
        vocab_size=50,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config)
    assert model.lm_head.weight is model.transformer.wte.weight
    return model


def transformer() -> nn.Module:
    return nn.Transformer(16, nhead=2, num_encoder_layers=1, num_decoder_layers=1, batch_first=True)


def lstm() -> nn.Module:
    return nn.LSTM(4, 8, num_layers=2, bidirectional=True)


def parametrized() -> nn.Module:
    return nn.Sequential(weight_norm(nn.Linear(4, 6)), orthogonal(nn.Linear(6, 6)))


class Counter(nn.Module):
    """Counts what it sees, in a dict of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(3))
        self.seen: dict[str, object] = {"count": int(torch.randint(1, 100, ())), "last": [1, "b"]}

    def get_extra_state(self) -> dict[str, object]:
        return {**self.seen, "sum": self.scale.detach() * 2}

    def set_extra_state(self, state: dict[str, object]) -> None:
        self.seen = {key: value for key, value in state.items() if key != "sum"}


def compiled() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    net.compile(backend="eager")
    net(torch.randn(5, 4))
    return net


def packed() -> nn.Module:
    """Half-precision weights, an 8-bit scale and two 4-bit integers a byte."""
    net = nn.Linear(4, 4, dtype=torch.bfloat16)
    net.register_buffer("scale", torch.rand(4).to(torch.float8_e4m3fn))
    net.register_buffer("packed", torch.randint(256, (4, 2), dtype=torch.uint8))
    return net


MODULES: list[Callable[[], nn.Module]] = [
    gpt2,
    transformer,
    lstm,
    parametrized,
    Counter,
    compiled,
    packed,
]


@pytest.fixture(params=MODULES, ids=lambda build: build.__name__)
def build(request) -> Callable[[], nn.Module]:
    return request.param


def made(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build().eval()


def digest_of(module: nn.Module) -> str:
    return Content(module.state_dict()).digest_now()


def saved(module: nn.Module, folder: Path) -> CheckpointManager:
    checkpoints = CheckpointManager(folder, ModulePool.from_modules({"net": module}))
    checkpoints.start()
    return checkpoints


def test_it_comes_back_exactly(tmp_path, build):
    first, second = made(build, 1), made(build, 2)
    wanted = digest_of(first)
    assert digest_of(second) != wanted
    saved(first, tmp_path).close()

    (report,) = (
        CheckpointManager(tmp_path, ModulePool.from_modules({"net": second})).load(LAST).values()
    )

    assert digest_of(second) == wanted
    assert (report.coverage, report.is_complete) == (100.0, True)
    plain = torch.load(tmp_path / LAST / "net.pt", weights_only=True)
    third = made(build, 3)
    third.load_state_dict(plain)
    assert digest_of(third) == wanted


def test_ties_and_gradients_stay_what_they_were(tmp_path):
    first, second = made(gpt2, 1), made(gpt2, 2)
    saved(first, tmp_path).close()
    before = {id(p): p.requires_grad for p in second.parameters()}

    CheckpointManager(tmp_path, ModulePool.from_modules({"net": second})).load(LAST)

    assert second.lm_head.weight is second.transformer.wte.weight
    assert {id(p): p.requires_grad for p in second.parameters()} == before
    tokens = torch.arange(8)[None]
    assert torch.equal(first(tokens).logits, second(tokens).logits)


def test_a_compiled_module_computes_with_what_was_loaded(tmp_path):
    first, second = made(compiled, 1), made(compiled, 2)
    saved(first, tmp_path).close()
    batch = torch.randn(3, 4)
    second(batch)

    CheckpointManager(tmp_path, ModulePool.from_modules({"net": second})).load(LAST)

    assert torch.equal(second(batch), first(batch))


def test_it_is_compared_tensor_by_tensor(tmp_path, build):
    module = made(build, 1)
    with saved(module, tmp_path) as checkpoints:
        with torch.no_grad():
            key, parameter = next(iter(module.named_parameters()))
            parameter.add_(1)
        checkpoints.commit(epoch_pool(1), epoch=1)
    reader = PoolReader(tmp_path)
    before, after = (reader.read(name)["net"] for name in (LAST, epoch_pool(1)))

    difference = compare_modules("net", before, after)

    assert compare_modules("net", before, before).is_same
    # A tie has two keys, and a scale is in the extra state too.
    changed = {tensor.name for tensor in difference.keys if not tensor.is_same}
    assert key in changed
    assert all(
        torch.equal(before.state[name], after.state[name])
        for name in before.state.keys() - changed
        if isinstance(before.state[name], torch.Tensor)
    )


def exported(module: nn.Module, folder: Path, format_: ExportFormat) -> Path:
    saved(module, folder / "pools").close()
    (file,) = export_modules(
        PoolReader(folder / "pools").read(LAST), folder, format_=format_, is_merged=False
    )
    return file


@pytest.mark.parametrize("format_", ["safetensors", "pt"])
def test_what_is_exported_goes_into_another_of_its_kind(tmp_path, build, format_):
    first, second = made(build, 1), made(build, 2)
    file = exported(first, tmp_path, format_)

    # Safetensors holds tensors under keys, and no extra state: the next test.
    strict = not (build is Counter and format_ == "safetensors")
    matched = match_weights(
        read_state_dict(file), second, module_name="net", source=file, strict=strict
    )
    apply_weights([(second, *matched)])

    assert (digest_of(second) == digest_of(first)) == strict
    assert all(map(torch.equal, second.parameters(), first.parameters()))


def test_a_mask_that_stays_as_it_is_does_not_count_as_changed(tmp_path):
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0.0, -torch.inf, torch.inf]))
    with saved(module, tmp_path) as checkpoints:
        module.weight.data.add_(1)
        checkpoints.commit(epoch_pool(1), epoch=1)
    reader = PoolReader(tmp_path)

    difference = compare_modules("net", reader.read(LAST)["net"], reader.read(epoch_pool(1))["net"])

    assert [key.name for key in difference.keys if not key.is_same] == ["weight"]
    assert difference.total.largest == pytest.approx(1)


def test_an_export_refuses_what_safetensors_has_no_name_for(tmp_path):
    with pytest.raises(CheckpointError, match="cannot hold complex128: weight") as caught:
        exported(nn.Linear(2, 2, dtype=torch.complex128), tmp_path, "safetensors")

    assert caught.value.fix == "--format pt"


def test_an_export_says_what_safetensors_cannot_hold(tmp_path, caplog):
    exported(made(Counter, 1), tmp_path, "safetensors")

    assert caplog.messages == [
        "net.safetensors: left out what safetensors cannot hold: _extra_state"
    ]
