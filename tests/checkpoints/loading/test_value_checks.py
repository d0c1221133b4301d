"""Values that would not arrive as they are, and loads that fail halfway."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from pymodules_core import apply_weights, match_weights
from pymodules_core.errors import CheckpointError, WeightMismatchError

FILE = Path("net.pt")


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def is_same(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(state) == list(other) and all(torch.equal(state[k], other[k]) for k in state)


def match(state, module, **options):
    return match_weights(state, module, module_name="net", source=FILE, **options)


def load(state, module, **options):
    fitting, report = match(state, module, **options)
    apply_weights([(module, fitting, report)])
    return report


def refusal(state, module, **options) -> WeightMismatchError:
    before = snapshot(module)
    with pytest.raises(WeightMismatchError) as caught:
        load(state, module, **options)
    assert is_same(module.state_dict(), before)
    return caught.value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_with_the_key(value):
    state = snapshot(nn.Linear(2, 3))
    state["weight"][1, 0] = value

    error = refusal(state, nn.Linear(2, 3))

    assert str(error) == (
        "net.pt: weights do not fit module 'net':\n"
        "  weight: 1 of 6 values are NaN or infinite\n"
        "  fix: strict = False to take the values as they are"
    )


def test_a_buffer_may_be_infinite_and_not_nan():
    module = nn.BatchNorm1d(2)
    state = snapshot(module)
    state["running_mean"][:] = torch.tensor([float("inf"), float("nan")])

    error = refusal(state, module)

    assert error.found.doubtful == {"running_mean": "1 of 2 values are NaN"}


def test_an_infinite_value_that_the_module_holds_already_is_not_a_fault():
    module = nn.Linear(2, 2)
    module.weight.data[0, 1] = -float("inf")

    report = load(snapshot(module), module)

    assert report.doubtful == {}


@pytest.mark.parametrize(
    ("value", "module", "row"),
    [
        (
            torch.tensor([[1e300, 0.5]], dtype=torch.float64),
            nn.Linear(2, 1),
            "1 of 2 values change from float64 in the file to float32 in the module",
        ),
        (
            torch.tensor([[0.1, 0.5]]),
            nn.Linear(2, 1, dtype=torch.bfloat16),
            "1 of 2 values change from float32 in the file to bfloat16 in the module",
        ),
        (
            torch.tensor([[1j, 1]]),
            nn.Linear(2, 1),
            "complex64 in the file loses its imaginary part as float32 in the module",
        ),
    ],
    ids=["overflow", "rounding", "complex"],
)
def test_values_that_the_modules_dtype_cannot_hold_are_refused_with_the_key(value, module, row):
    error = refusal({"weight": value, "bias": torch.ones(1)}, module)

    assert str(error) == (
        f"net.pt: weights do not fit module 'net':\n  weight: {row}\n"
        "  fix: strict = False to take the values as they are"
    )


def test_another_dtype_that_changes_no_value_is_loaded():
    module = nn.Linear(2, 1)
    state = {"weight": torch.tensor([[1, 2]]), "bias": torch.tensor([0.5], dtype=torch.float64)}

    load(state, module)

    assert module.weight.tolist() == [[1, 2]]
    assert module.weight.dtype == torch.float32


def test_without_strict_doubtful_values_are_loaded_and_warned_of_with_the_key(caplog):
    module = nn.Linear(1, 1)
    state = {"weight": torch.tensor([[float("nan")]]), "bias": torch.tensor([0.1]).double()}
    state["bias"] += 1e-12

    with caplog.at_level(logging.WARNING):
        report = load(state, module, strict=False)

    assert caplog.messages == [
        "weights of net: weight: 1 of 1 values are NaN or infinite, loaded from net.pt anyway",
        "weights of net: bias: 1 of 1 values change from float64 in the file to float32 in the "
        "module, loaded from net.pt anyway",
    ]
    assert str(report) == "net: 2 tensors loaded, 100%, 2 doubtful"
    assert module.weight.isnan().all()


class Picky(nn.Linear):
    """Copies its weights, changes a buffer that is not saved, and then refuses its extra state."""

    def __init__(self):
        super().__init__(2, 2)
        self.register_buffer("loads", torch.zeros(1), persistent=False)
        self.seen = [1]

    def get_extra_state(self):
        return self.seen

    def set_extra_state(self, state):
        self.loads += 1
        self.seen[:] = state
        if state != [1]:
            raise RuntimeError(f"cannot take {state}\nand more")


def test_a_module_whose_own_hook_raises_is_as_before_and_so_are_the_others():
    first, second = nn.Linear(2, 2), Picky()
    before = snapshot(first), second.weight.detach().clone()
    changed = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    loads = [
        (module, *match(state, module))
        for module, state in [(first, changed), (second, {**changed, "_extra_state": [2]})]
    ]

    with pytest.raises(CheckpointError) as caught:
        apply_weights(loads)

    assert str(caught.value) == (
        "net.pt: loading into module 'net' raises RuntimeError: cannot take [2]\n"
        "  fix: let the module's set_extra_state and load_state_dict hooks accept the file; no "
        "module was changed"
    )
    assert is_same(first.state_dict(), before[0])
    assert torch.equal(second.weight, before[1])
    assert (second.seen, second.loads.item()) == ([1], 0)
