"""Any tree of tensors comes back exactly, and only equal content has equal names."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pymodules_core.checkpoints.file_buffer.buffer import FileBuffer
from pymodules_core.checkpoints.file_format.digest import Content

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.complex128,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
]


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = torch.Size(shape).numel() * torch.empty(0, dtype=dtype).element_size()
    content = draw(st.binary(min_size=size, max_size=size))
    if dtype == torch.bool:
        content = bytes(byte & 1 for byte in content)
    if not content:
        return torch.empty(shape, dtype=dtype)
    tensor = torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)
    if tensor.dim() >= 2 and draw(st.booleans()):
        tensor = tensor.transpose(0, 1)
    if tensor.dim() and draw(st.booleans()):
        tensor = tensor[::2]
    if draw(st.booleans()):
        tensor = tensor[None].expand(2, *tensor.shape)
    if dtype.is_complex and draw(st.booleans()):
        tensor = tensor.conj()
        # A negated view, which is not a copy either.
        tensor = tensor.imag if draw(st.booleans()) else tensor
    return tensor


def raw(tensor):
    """Return dtype, shape and bytes, the latter by torch's own iteration over elements."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    flat = copy.view(-1).view(torch.uint8) if copy.numel() else torch.empty(0)
    return tensor.dtype, tensor.shape, bytes(flat.tolist())


def raw_tree(value):
    """Return all that two trees have to have in common."""
    if isinstance(value, torch.Tensor):
        return raw(value)
    if isinstance(value, dict):
        return "dict", {repr(key): raw_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [raw_tree(item) for item in value]
    return repr(value)


states = st.dictionaries(st.text(min_size=1, max_size=5), tensors(), max_size=4)
primitives = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
trees = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        tensors() | primitives | st.binary(min_size=1, max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.integers() | st.text(max_size=2), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(deadline=None)
@given(trees)
def test_any_state_comes_back_exactly(tmp_path_factory, state):
    image = FileBuffer(state)
    image.finish()
    file = tmp_path_factory.mktemp("state") / "x.pt"
    file.write_bytes(image.pages[: image.size_bytes])

    read = torch.load(file, weights_only=True)

    assert raw_tree(read) == raw_tree(state)
    assert Content(read).digest_now() == image.finished.digest == Content(state).digest_now()


@settings(deadline=None)
@given(trees, trees)
def test_digests_are_equal_only_for_equal_content(first, second):
    same = raw_tree(first) == raw_tree(second)

    assert (Content(first).digest_now() == Content(second).digest_now()) == same


@settings(deadline=None)
@given(tensors())
def test_a_tie_is_not_a_copy(tensor):
    tied = Content({"a": tensor, "b": tensor})
    copied = Content({"a": tensor, "b": tensor.clone()})

    assert tied.digest_now() != copied.digest_now()
    assert len(tied.tensors) == 1
