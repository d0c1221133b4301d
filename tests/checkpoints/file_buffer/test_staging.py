"""Images in reused memory: what changed is found, and each tensor lands in its own place."""

from collections import OrderedDict

import pytest
import torch

from pymodules_core.checkpoints.file_buffer import Staging
from pymodules_core.checkpoints.file_buffer.buffer import FileBuffer
from pymodules_core.checkpoints.file_format.digest import Content


def saved(image: FileBuffer, tmp_path) -> dict[str, torch.Tensor]:
    image.finish()
    file = tmp_path / "x.pt"
    file.write_bytes(image.pages[: image.size_bytes])
    return torch.load(file, weights_only=True)


def nothing() -> None:
    """Nobody reads the images, so that there is nothing to wait for."""


def large_state() -> dict[str, torch.Tensor]:
    # More than one thread is worth, in several tensors of several chunks.
    return {f"w{number}": torch.rand(3 << 20) for number in range(4)}


@pytest.mark.parametrize("element", [0, 5000, (3 << 20) - 1], ids=["head", "middle", "end"])
@pytest.mark.parametrize("name", ["w0", "w3"])
def test_one_changed_element_of_many_is_found(tmp_path, name, element):
    staging, state = Staging(), large_state()
    staging.take({"net": state}, nothing)["net"].finish()
    state[name][element] += 1

    image = staging.take({"net": state}, nothing)["net"]

    assert image.finished is None
    assert saved(image, tmp_path)[name][element] == state[name][element]
    staging.close()


def test_what_did_not_change_stays_sealed_and_waits_for_nobody():
    staging, state = Staging(), large_state()
    before = staging.take({"net": state}, nothing)["net"]
    finished = before.finish()

    image = staging.take({"net": state}, lambda: pytest.fail("waited"))["net"]

    assert image is before
    assert image.finished is finished
    staging.close()


def test_keys_in_another_order_do_not_swap_their_tensors(tmp_path):
    staging = Staging()
    first, second = torch.zeros(3), torch.ones(3)
    one = staging.take({"net": OrderedDict(a=first, b=second)}, nothing)["net"].finish()

    image = staging.take({"net": OrderedDict(b=second, a=first)}, nothing)["net"]

    read = saved(image, tmp_path)
    assert torch.equal(read["a"], first)
    assert torch.equal(read["b"], second)
    assert image.finish().digest == one.digest


def test_a_state_that_is_laid_out_again_keeps_its_memory(tmp_path):
    staging = Staging()
    moments = torch.rand(1000)
    memory = staging.take({"state": {"step": 9, "m": moments}}, nothing)["state"].memory

    image = staging.take({"state": {"step": 1000, "m": moments * 2}}, nothing)["state"]

    assert image.memory is memory
    read = saved(image, tmp_path)
    assert read["step"] == 1000
    assert torch.equal(read["m"], moments * 2)
    assert image.finish().digest == Content({"step": 1000, "m": moments * 2}).digest_now()


def test_memory_that_is_too_small_or_far_too_large_is_not_kept():
    staging = Staging()
    memory = staging.take({"state": {"m": torch.rand(5000)}}, nothing)["state"].memory

    grown = staging.take({"state": {"m": torch.rand(9000)}}, nothing)["state"].memory
    shrunk = staging.take({"state": {"m": torch.rand(3)}}, nothing)["state"].memory

    assert grown is not memory
    assert shrunk is not grown
