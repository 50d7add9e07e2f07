"""What every pattern of positions must show, against the dense oracle, by each kernel that a device may have.

And full attention with a bias of the distance as a GPU computes it: no n x n tensor, and the equation all the same.

On a processor flex_attention is torch's uncompiled reference, on a GPU compiled.
"""

import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.testing import assert_close

from tests.attention.block_sparse_oracle import (
    BIASES,
    HEAD_DIM,
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
from xformer.attention.bigbird import BigBird
from xformer.attention.full import Full
from xformer.attention.kernels.block_sparse import attention as flex
from xformer.attention.kernels.block_sparse.attention import (
    BLOCK,
    SHORTEST,
    block_mask,
    flex_supports,
    flex_supports_dense,
    padded_length,
)
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.errors import IncompatibleError
from xformer.layers.initialise import initialise
from xformer.position.alibi import ALiBi, LinearBias
from xformer.position.base import PositionContext
from xformer.position.t5 import T5
from xformer.position.transformer_xl import TransformerXL

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


LENGTH = BLOCK + 21
CPU = torch.device("cpu")


class Fixed(Table):
    """A table that is not trained."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(reach=LENGTH, **keywords)
        self.weight.requires_grad_(False)


def slopes() -> LinearBias:
    return LinearBias(torch.tensor([0.5, 0.25, 0.0625]))


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The same call as on a GPU, of torch's own reference, which has a backward that torch refuses on a processor."""
    calls: list[Any] = []

    def reference(*arguments: Any, **keywords: Any) -> Tensor:
        calls.append(arguments)
        mixed: Tensor = torch_flex.flex_attention(*arguments, **keywords)
        return mixed

    monkeypatch.setattr(torch_flex, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(torch_flex, "_warn_once", lambda *arguments, **keywords: None)
    monkeypatch.setattr(flex, "flex_supports", lambda query, bias, unordered=False: True)
    monkeypatch.setattr(flex, "SHORTEST", 1)
    monkeypatch.setattr(flex, "_compiled", lambda: reference)
    yield calls
    assert calls  # else something other was tested


def compare(
    variant: Any, causal: bool, bias: Any, length: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> None:
    """Values and gradients, against the dense oracle in float32 on a processor."""
    attention, exact = variant.attention(causal, max_length=LENGTH), qkv(2, length)
    expected = dense(*exact, matrix(variant, attention, length, causal), bias)
    weights = torch.randn_like(expected)
    inputs = [x.detach().to(device, dtype).requires_grad_() for x in exact]
    mask, there = Mask.consecutive(0, length, causal=causal, device=torch.device(device)), moved(bias, device)
    mixed = attention.to(device)(*inputs, mask=mask, bias=there)
    near = dict(atol=1e-4, rtol=1e-4) if dtype == torch.float32 else dict(atol=6e-2, rtol=6e-2)
    assert mixed.dtype == dtype
    assert_close(mixed.cpu().float(), expected, **near)
    found = torch.autograd.grad((mixed * weights.to(mixed)).sum(), inputs)
    for gradient, wanted in zip(found, torch.autograd.grad((expected * weights).sum(), exact), strict=True):
        assert_close(gradient.cpu().float(), wanted, **near)


def moved(bias: Any, device: str) -> Any:
    return LinearBias(bias.slopes.to(device)) if isinstance(bias, LinearBias) else bias and bias.to(device)


def padded(variant: Any, causal: bool, bias: Any, device: str = "cpu") -> None:
    """Rows of other lengths, filled up on either side or throughout, are what they are alone."""
    attention, length = variant.attention(causal, max_length=LENGTH).to(device), 40
    real = torch.stack([torch.arange(length) < 29, torch.arange(length) >= 17, torch.arange(length) % 3 > 0])
    real = torch.cat((real, real[:1] & False))
    positions = (real.long().cumsum(-1) - 1).clamp(min=0)
    inputs = [x.detach() for x in qkv(len(real), length)]
    polluted = [x.where(real[:, None, :, None], torch.nan).to(device).requires_grad_() for x in inputs]
    places, there = positions.to(device), real.to(device)
    mixed = attention(*polluted, mask=Mask(places, places, causal, there), bias=moved(bias, device))
    for gradient in torch.autograd.grad(mixed.sum(), polluted):
        assert gradient.isfinite().all()
    expected, bias = torch.zeros(mixed.shape), moved(bias, "cpu")
    for row, count in enumerate(real.sum(1).tolist()):
        if count:
            one = [x[row : row + 1, :, real[row]] for x in inputs]
            expected[row, :, real[row]] = dense(*one, matrix(variant, attention, count, causal), bias)[0]
    assert_close(mixed.cpu(), expected, atol=1e-4, rtol=1e-4)


@all_variants
@both_directions
def test_flex_equals_the_dense_oracle(variant: Any, causal: bool, uncompiled: list[Any]) -> None:
    compare(variant, causal, slopes() if causal else None, 37)


@pytest.mark.parametrize("name", ["local", "strided", "bigbird"])
@pytest.mark.parametrize("length", [1, BLOCK, LENGTH])
def test_lengths_of_whole_blocks_and_others(name: str, length: int, uncompiled: list[Any]) -> None:
    compare(VARIANTS[name], True, Fixed(), length)


@pytest.mark.parametrize("name", ["local", "strided", "strided, split", "fixed", "bigbird"])
def test_flex_of_a_padded_batch_equals_its_sequences(name: str, uncompiled: list[Any]) -> None:
    padded(VARIANTS[name], name == "local", slopes())


@all_variants
@both_directions
@pytest.mark.parametrize("length", [BLOCK, 2 * BLOCK + 21])
def test_blocks_are_those_where_a_pair_counts(variant: Any, causal: bool, length: int) -> None:
    attention, whole = variant.attention(causal, max_length=length), padded_length(length)
    mask_mod = attention.mask_mod(whole, causal=causal)
    mask, padding = (
        block_mask(mask_mod, HEADS, length, whole, CPU, valid) for valid in (None, torch.ones(1, length) > 0)
    )
    pairs = torch.nn.functional.pad(matrix(variant, attention, length, causal), (0, whole - length) * 2)
    blocks = (
        pairs[: mask.kv_num_blocks.shape[1]]
        .unflatten(2, (-1, BLOCK))
        .unflatten(1, (-1, BLOCK))
        .transpose(2, 3)
        .flatten(3)
    )
    some, every = blocks.any(-1), blocks.all(-1)
    assert torch.equal(listed(mask.kv_num_blocks, mask.kv_indices), some & ~every)
    assert torch.equal(listed(mask.full_kv_num_blocks, mask.full_kv_indices), every)
    assert torch.equal(listed(mask.q_num_blocks, mask.q_indices), (some & ~every).mT)
    assert torch.equal(listed(padding.kv_num_blocks, padding.kv_indices), some)
    assert padding.full_kv_num_blocks is None  # else padding inside of them would be read


def listed(count: Any, which: Any) -> Tensor:
    """What a list of blocks says, as a matrix of blocks, of every head."""
    found = torch.zeros(which.shape, dtype=torch.bool)
    for place in torch.cartesian_prod(*map(torch.arange, count.shape)).tolist():
        found[(*place, which[tuple(place)][: count[tuple(place)]].long())] = True
    return found[0]


@all_variants
def test_blocks_are_found_once_for_layers_that_are_alike(variant: Any) -> None:
    first, second = variant.attention(True), variant.attention(True)
    same = [
        block_mask(layer.mask_mod(BLOCK, causal=True), HEADS, 37, BLOCK, CPU, None) for layer in (first, first, second)
    ]
    assert same[0] is same[1]
    assert (same[0] is same[2]) != isinstance(first, BigBird)  # whose layers draw
    other = block_mask(first.mask_mod(BLOCK, causal=True), HEADS, 36, BLOCK, CPU, None)
    assert other is not same[0]


def test_new_draws_are_new_blocks() -> None:
    attention = VARIANTS["bigbird"].attention(False, max_length=LENGTH)
    before = attention.mask_mod(BLOCK, causal=False)
    attention.load_state_dict({"draws": attention.draws + 1})
    after = attention.mask_mod(BLOCK, causal=False)
    assert before is not after
    attention.reset_parameters()
    assert after is not attention.mask_mod(BLOCK, causal=False)


def test_blocks_found_in_a_validation_serve_a_training(uncompiled: list[Any]) -> None:
    attention, inputs = VARIANTS["local, wide"].attention(True), qkv(1, 33)
    flex._blocks.cache_clear()
    with torch.inference_mode():
        attention(*(x.detach().clone() for x in inputs), mask=own_mask(33, True))
    attention(*inputs, mask=own_mask(33, True)).sum().backward()


@pytest.mark.parametrize("span", [1, 127, 128, 129, 2048, 2049, 5000, 65_536])
def test_lengths_are_few_and_little_longer(span: int) -> None:
    length = padded_length(span)
    assert length % BLOCK == 0
    assert span <= length < max(span + BLOCK, span * 9 / 8 + 1)
    assert len({padded_length(n) for n in range(2048, 4097)}) <= 9


def test_a_processor_gathers() -> None:
    assert not flex_supports(torch.zeros(1, 1, 4, 16), None)


@pytest.mark.slow
@both_directions
def test_compiled_for_a_processor_skips_the_same_blocks(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward alone: torch has no more there. Unlike the reference, this reads the lists of blocks."""
    monkeypatch.setattr(flex, "flex_supports", lambda query, bias: True)
    for name in ("local", "strided, split", "bigbird"):
        variant, length = VARIANTS[name], 3 * BLOCK - 5
        attention, inputs = variant.attention(causal, max_length=length), [x.detach() for x in qkv(2, length)]
        expected = dense(*inputs, matrix(variant, attention, length, causal), slopes())
        with torch.no_grad():
            mixed = attention(*inputs, mask=own_mask(length, causal), bias=slopes())
        assert_close(mixed, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@all_variants
@both_directions
@pytest.mark.parametrize("make_bias", [lambda: None, slopes, Fixed], ids=["no bias", "alibi", "table"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_equals_the_dense_oracle(
    variant: Any, causal: bool, make_bias: Callable[[], Any], dtype: torch.dtype
) -> None:
    compare(variant, causal, make_bias(), LENGTH, "cuda", dtype)


@pytest.mark.gpu
@all_variants
@both_directions
def test_compiled_equals_the_oracle_of_a_padded_batch(variant: Any, causal: bool) -> None:
    padded(variant, causal, slopes(), "cuda")


@pytest.mark.gpu
def test_what_a_gpu_takes(caplog: pytest.LogCaptureFixture) -> None:
    query = torch.zeros(1, 3, 4, 4, device="cuda")
    caplog.set_level(logging.DEBUG)
    assert flex_supports(query, None)
    assert flex_supports(query, Fixed().to("cuda"))
    assert not flex_supports(query, Table().to("cuda"))  # which is trained
    assert not flex_supports(query, Content().to("cuda"))
    assert not flex_supports(query.double(), None)
    mask = Mask.consecutive(0, 4, causal=True, device=query.device)
    VARIANTS["local"].attention(True).to("cuda")(query, query, query, mask=mask)
    assert "flex_attention kernel" in caplog.text


SCHEMES: dict[str, tuple[Any, dict[str, Any]]] = {
    "alibi": (ALiBi, {}),
    "t5": (T5, {"buckets": 8, "max_distance": 16}),
    "transformer_xl": (TransformerXL, {"base": 100.0}),
}
both_schemes = pytest.mark.parametrize("name", ["alibi", "t5"])


def scheme(name: str, causal: bool, heads: int, features: int, length: int) -> Any:
    kind, keywords = SCHEMES[name]
    position = kind(PositionContext(heads * features, heads, features, 1, length, causal), **keywords)
    initialise(position, 0)
    for parameter in position.parameters():  # large enough to be seen
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return position


def equation(query: Tensor, key: Tensor, value: Tensor, bias: Any, causal: bool, real: Tensor | None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + B) V in float64, B written out from its definition pair by pair."""
    query, key, value = (x.double() for x in (query, key, value))
    place = torch.arange(query.shape[2])
    distances = place[None] - place[:, None]
    scores = query @ key.mT * query.shape[-1] ** -0.5 + bias.table(distances).double()[None]
    hidden = (distances > 0) & causal
    hidden = hidden[None, None] if real is None else hidden | ~real[:, None, None]
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ value


def compare_full(
    name: str, causal: bool, length: int, side: str | None,
    device: str = "cpu", dtype: torch.dtype = torch.float32, heads: int = HEADS, features: int = HEAD_DIM,
) -> None:  # fmt: skip
    """Values, and the gradients of queries, keys, values and the trained table."""
    position = scheme(name, causal, heads, features, length)
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(2, heads, length, features, generator=generator, requires_grad=True) for _ in range(3)]
    real = None if side is None else torch.arange(length) < torch.tensor([[length], [length - 3]])
    shown = torch.ones(2, 1, length, 1) if real is None else real[:, None, :, None]
    weights = torch.randn(exact[0].shape, generator=generator) * shown
    expected = equation(*exact, position.bias(0), causal, real)
    wanted = torch.autograd.grad((expected * weights).sum(), [*exact, *position.parameters()])
    inputs = [x.detach().where(shown > 0, torch.nan).to(device, dtype).requires_grad_() for x in exact]
    there = position.to(device)
    mask = Mask.consecutive(
        0, length, causal=causal, device=torch.device(device), key_padding=None if real is None else real.to(device)
    )
    attention = Full(AttentionContext(heads, features, length, length, causal))
    mixed = attention(*inputs, mask=mask, bias=there.bias(0))
    assert mixed.dtype == dtype
    near = dict(atol=1e-4, rtol=1e-4) if dtype == torch.float32 else dict(atol=6e-2, rtol=6e-2)
    assert_close((mixed.cpu().float() * shown), (expected * shown).float(), **near)
    found = torch.autograd.grad(
        torch.where(shown.to(device) > 0, mixed * weights.to(mixed), 0.0).sum(), [*inputs, *there.parameters()]
    )
    for gradient, exactly in zip(found, wanted, strict=True):
        scale = max(1.0, exactly.abs().max().item())  # that of a table is a sum over all pairs
        assert_close(gradient.cpu().float() / scale, exactly.float() / scale, **near)


@both_schemes
@both_directions
@pytest.mark.parametrize("side", [None, "right"])
@pytest.mark.parametrize("length", [37, 128])
def test_full_attention_equals_the_equation(
    name: str, causal: bool, side: str | None, length: int, uncompiled: list[Any]
) -> None:
    compare_full(name, causal, length, side)


@both_schemes
def test_what_full_attention_adds_is_linear_in_the_length(name: str, uncompiled: list[Any]) -> None:
    """What the function holds on to, whatever the kernel makes of it."""
    length = 256
    position = scheme(name, True, HEADS, HEAD_DIM, length)
    query = torch.randn(1, HEADS, length, HEAD_DIM)
    attention = Full(AttentionContext(HEADS, HEAD_DIM, length, length, True))
    attention(query, query, query, mask=Mask.consecutive(0, length, causal=True), bias=position.bias(0))
    (_, _, _, added, _), = uncompiled  # fmt: skip
    held = [cell.cell_contents for cell in added.__closure__ if isinstance(cell.cell_contents, Tensor)]
    assert sum(tensor.numel() for tensor in held) <= HEADS * (2 * length - 1)


def test_when_full_attention_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(flex, "flex_supports", lambda query, bias, unordered: asked.append(unordered) or True)
    long, short = (torch.zeros(1, HEADS, n, HEAD_DIM) for n in (SHORTEST, SHORTEST - 1))
    biases = {name: scheme(name, True, HEADS, HEAD_DIM, SHORTEST).bias(0) for name in SCHEMES}
    mask = Mask.consecutive(0, SHORTEST, causal=True)
    assert flex_supports_dense(long, mask, biases["t5"])
    assert not flex_supports_dense(short, mask, biases["t5"])
    assert not flex_supports_dense(long, mask, None)
    step = Mask(torch.tensor([[SHORTEST - 1]]), torch.arange(SHORTEST)[None])
    assert not flex_supports_dense(long, step, biases["alibi"])
    torch.use_deterministic_algorithms(True)
    assert flex_supports_dense(long, mask, biases["t5"])
    assert asked == [True, False]  # whether the gradient of a table may be summed in any order


@pytest.mark.gpu
@both_schemes
@both_directions
@pytest.mark.parametrize("side", [None, "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_full_attention_compiled_equals_the_equation(
    name: str, causal: bool, side: str | None, dtype: torch.dtype
) -> None:
    compare_full(name, causal, SHORTEST + 5, side, "cuda", dtype, features=64)


@pytest.mark.gpu
@pytest.mark.parametrize("training", [False, True])
@both_schemes
def test_a_device_holds_no_tensor_of_all_pairs(name: str, training: bool) -> None:
    from xformer.benchmark.live_bytes import extra_bytes

    length = 16_384
    device = torch.device("cuda")
    position = scheme(name, True, HEADS, 64, length).to(device)
    query = torch.randn(1, HEADS, length, 64, device=device, dtype=torch.bfloat16, requires_grad=training)
    attention = Full(AttentionContext(HEADS, 64, length, length, True))
    mask = Mask.consecutive(0, length, causal=True, device=device)

    def call() -> None:
        mixed = attention(query, query, query, mask=mask, bias=position.bias(0))
        if training:
            mixed.sum().backward()

    call()  # which compiles, and finds the blocks
    assert extra_bytes(call) < length * length
