"""What every pattern of positions must show, against the dense oracle, by the kernels of a processor."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.attention.block_sparse_oracle import (
    BIASES,
    HEADS,
    VARIANTS,
    Content,
    Table,
    dense,
    matrix,
    own_mask,
    qkv,
)
from xformer.attention.base import AttentionContext
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.errors import IncompatibleError

all_variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
both_directions = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
# On a CPU flex_attention runs in the tracer, which looks at the gradient of whatever it is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def gradients(mixed: Tensor, inputs: list[Tensor], bias: Any) -> list[Tensor]:
    weights = torch.arange(1.0, mixed.numel() + 1).view_as(mixed).cos()
    parameters = list(bias.parameters()) if bias is not None else []
    found = torch.autograd.grad((mixed * weights).sum(), [*inputs, *parameters], allow_unused=True)
    return [torch.zeros(()) if gradient is None else gradient for gradient in found]


@all_variants
@both_directions
@pytest.mark.parametrize(
    ("bias_name", "length"),
    [*(("no bias", n) for n in (1, 2, 3, 4, 5, 15, 17, 37)), *itertools.product(("table", "content"), (2, 5, 37))],
)
def test_equals_the_dense_oracle_with_its_gradients(variant: Any, causal: bool, bias_name: str, length: int) -> None:
    attention, inputs, bias = variant.attention(causal), qkv(2, length), BIASES[bias_name]()
    mixed = attention(*inputs, mask=own_mask(length, causal), bias=bias)
    expected = dense(*inputs, matrix(variant, attention, length, causal), bias)
    assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    for found, wanted in zip(gradients(mixed, inputs, bias), gradients(expected, inputs, bias), strict=True):
        assert_close(found, wanted.expand_as(found), atol=1e-4, rtol=1e-4)


@all_variants
@both_directions
@pytest.mark.parametrize(
    ("bias_name", "side"),
    [("no bias", "left"), ("no bias", "right"), ("no bias", "scattered"), ("table", "left"), ("content", "left")],
)
def test_a_padded_batch_equals_its_sequences(variant: Any, causal: bool, bias_name: str, side: str) -> None:
    attention, length, lengths = variant.attention(causal), 23, [23, 17, 1, 0]
    inputs, bias = qkv(len(lengths), length), BIASES[bias_name]()
    index = torch.arange(length)
    order = {"left": -index, "right": index, "scattered": index * 7 % length}[side]
    rank = order.argsort().argsort()
    real = rank < torch.tensor(lengths)[:, None]
    positions = (real.long().cumsum(-1) - 1).clamp(min=0) if side != "right" else index[None]
    polluted = [x.where(real[:, None, :, None], torch.nan) for x in inputs]
    mixed = attention(*polluted, mask=Mask(positions, positions, causal, real), bias=bias)
    assert mixed.isfinite().all()
    expected = torch.zeros_like(mixed)
    for row, n in enumerate(lengths):
        one = [x[row : row + 1, :, real[row]] for x in inputs]
        if n:
            expected[row, :, real[row]] = dense(*one, matrix(variant, attention, n, causal), bias)[0]
    assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    for found, wanted in zip(gradients(mixed, inputs, bias), gradients(expected, inputs, bias), strict=True):
        assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@all_variants
def test_positions_need_not_be_contiguous(variant: Any) -> None:
    attention, inputs = variant.attention(True), qkv(2, 9)
    positions = torch.tensor([[3, 4, 5, 9, 12, 13, 20, 24, 30], [0, 1, 2, 3, 4, 5, 6, 7, 8]])
    mixed = attention(*inputs, mask=Mask(positions, positions, True))
    for row in range(2):
        reads = matrix(variant, attention, 31, True)[:, positions[row]][:, :, positions[row]]
        assert_close(mixed[row : row + 1], dense(*(x[row : row + 1] for x in inputs), reads), atol=1e-5, rtol=1e-5)


@all_variants
@pytest.mark.parametrize(
    ("bias_name", "sizes"),
    [
        ("no bias", [1] * 23),
        ("no bias", [9, 5, 9]),
        ("no bias", [23]),
        ("table", [9, *[1] * 14]),
        ("content", [9, *[1] * 14]),
    ],
    ids=str,
)
def test_step_equals_forward(variant: Any, bias_name: str, sizes: list[int]) -> None:
    attention, inputs, bias = variant.attention(True), qkv(3, 23), BIASES[bias_name]()
    real = torch.arange(23) >= torch.tensor([[0], [3], [14]])
    positions = (real.long().cumsum(-1) - 1).clamp(min=0)
    expected = attention(*inputs, mask=Mask(positions, positions, True, real), bias=bias)
    state, steps = attention.init_state(23), []
    with torch.no_grad():
        for start, end in itertools.pairwise(itertools.accumulate(sizes, initial=0)):
            new = slice(start, end)
            mask = Mask(positions[:, new], positions[:, new], True, real[:, new])
            steps.append(attention.step(*(x[:, :, new] for x in inputs), state, mask=mask, bias=bias))
            assert state.length == end
    assert_close(torch.cat(steps, dim=2), expected.detach(), atol=1e-5, rtol=1e-5)


@all_variants
def test_steps_follow_prompts_padded_on_the_right(variant: Any) -> None:
    attention, inputs, prompt = variant.attention(True), qkv(2, 30), 20
    index, length = torch.arange(30), torch.tensor([[20], [2]])
    real = (index < length) | (index >= prompt)
    positions = torch.where(index < prompt, index, length + index - prompt)
    state = attention.init_state(30)
    for new in [slice(0, prompt), *(slice(at, at + 1) for at in range(prompt, 30))]:
        mask = Mask(positions[:, new], positions[:, new], True, real[:, new])
        mixed = attention.step(*(x[:, :, new] for x in inputs), state, mask=mask)
    for row in range(2):
        one = [x[row : row + 1, :, real[row]] for x in inputs]
        expected = dense(*one, matrix(variant, attention, one[0].shape[2], True))
        assert_close(mixed[row], expected[0, :, -1:], atol=1e-5, rtol=1e-5)


@all_variants
def test_the_rows_of_a_state_can_be_reordered(variant: Any) -> None:
    attention, inputs = variant.attention(True), qkv(2, 12)
    state = attention.init_state(12)
    attention.step(*(x[:, :, :11] for x in inputs), state, mask=own_mask(11, True))
    swapped = torch.tensor([1, 1])
    state.reorder(swapped)
    last = attention.step(*(x[swapped, :, 11:] for x in inputs), state, mask=own_mask(1, True, start=11))
    expected = attention(*(x[swapped] for x in inputs), mask=own_mask(12, True))[:, :, 11:]
    assert_close(last, expected, atol=1e-5, rtol=1e-5)
    assert state.bytes > 0


@all_variants
@pytest.mark.parametrize(("bias_name", "causal"), [("no bias", False), ("table", True), ("content", False)])
def test_numerical_gradients(variant: Any, causal: bool, bias_name: str) -> None:
    attention = variant.attention(causal, heads=2, head_dim=2)
    inputs = [x.detach().double().requires_grad_() for x in qkv(1, 7, heads=2, head_dim=2)]
    keywords = {} if bias_name != "content" else {"head_dim": 2}
    bias = BIASES[bias_name](heads=2, reach=7, **keywords)
    parameters = list(bias.double().parameters()) if bias is not None else []
    real = torch.tensor([[False, True, True, True, True, True, False]])
    mask = Mask(own_mask(7, causal).query_positions, torch.arange(7)[None], causal, real)

    def run(*tensors: Tensor) -> Tensor:
        mixed: Tensor = attention(*tensors[:3], mask=mask, bias=bias)
        return mixed

    assert torch.autograd.gradcheck(run, [*inputs, *parameters], fast_mode=True)


@all_variants
def test_the_future_changes_nothing(variant: Any) -> None:
    attention, inputs = variant.attention(True), qkv(1, 19)
    before = attention(*inputs, mask=own_mask(19, True))
    for cut in range(1, 19):
        later = [x.detach().clone() for x in inputs]
        for x in later:
            x[:, :, cut:] = torch.randn_like(x[:, :, cut:]) * 100
        assert_close(attention(*later, mask=own_mask(19, True))[:, :, :cut], before[:, :, :cut])


@all_variants
def test_low_precision_stays_close(variant: Any) -> None:
    attention, inputs, table, content = variant.attention(False), qkv(1, 21), Table(), Content()
    for bias in (None, table, content):
        expected = attention(*inputs, mask=own_mask(21, False), bias=bias)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = attention(*inputs, mask=own_mask(21, False), bias=bias)
        assert_close(mixed.float(), expected, atol=0.15, rtol=0.1)
        mixed.float().sum().backward()


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the most elements that any operation's result refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return result


@pytest.mark.parametrize("name", ["local", "strided, square root", "fixed, two columns", "bigbird"])
@pytest.mark.parametrize(("bias_name", "causal"), [("no bias", True), ("table", False), ("content", False)])
def test_nothing_grows_faster_than_the_length(name: str, causal: bool, bias_name: str) -> None:
    # Under a content bias the strided and fixed patterns keep n^2 / l scores, or n^1.5 where l is the square root.
    growth = 3.0 if bias_name == "content" and name.startswith(("strided", "fixed")) else 2.2
    sizes = []
    for length in (4096, 8192):
        attention = VARIANTS[name].attention(causal, heads=1, max_length=length)
        if name.startswith("fixed"):
            attention.stride = 90 if length == 8192 else 64
        inputs = qkv(1, length, heads=1)
        bias = {"no bias": None, "table": Table(heads=1, reach=length), "content": Clipped()}[bias_name]
        with Largest() as largest:
            attention(*inputs, mask=own_mask(length, causal), bias=bias).sum().backward()
        sizes.append(largest.elements)
        assert largest.elements < length * length / 4
    assert sizes[1] <= growth * sizes[0]


class Clipped(Content):
    """Distances beyond the table's end share its last vector; the products are formed before they are looked up."""

    def __init__(self) -> None:
        super().__init__(heads=1, reach=2)

    def scores(self, query: Tensor, distances: Tensor) -> Tensor:
        products = torch.einsum("bh...d,hcd->bh...c", query, self.keys)
        index = (distances.clamp(-2, 2) + 2)[:, None].expand(*products.shape[:-1], -1)
        return products.gather(-1, index)

    def values(self, weights: Tensor, distances: Tensor) -> Tensor:
        index = (distances.clamp(-2, 2) + 2)[:, None].expand_as(weights)
        bins = weights.new_zeros(*weights.shape[:-1], 5).scatter_add(-1, index, weights)
        return torch.einsum("bh...c,hcd->bh...d", bins, self.vectors)


@all_variants
def test_cross_attention_is_refused(variant: Any) -> None:
    assert Capability.CROSS not in variant.build.provides
    with pytest.raises(IncompatibleError, match="correspond"):
        variant.build(AttentionContext(HEADS, 4, 8, 8, causal=False, cross=True), **variant.keywords)
    query, key = qkv(1, 3)[0], qkv(1, 5)[0]
    attention, mask = variant.attention(False), Mask(torch.arange(3)[None], torch.arange(5)[None])
    with pytest.raises(IncompatibleError, match="correspond"):
        attention(query, key, key, mask=mask)


@all_variants
def test_the_layout_in_memory_changes_nothing(variant: Any) -> None:
    """A projection yields b n h d, of which the heads are a view; the result is laid out alike."""
    attention, inputs, mask = variant.attention(False), qkv(2, 36), own_mask(36, False)
    views = [x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in inputs]
    expected, mixed = attention(*inputs, mask=mask), attention(*views, mask=mask)
    assert_close(mixed, expected)
    for found, wanted in zip(gradients(mixed, views, None), gradients(expected, inputs, None), strict=True):
        assert_close(found, wanted, atol=1e-5, rtol=1e-5)
