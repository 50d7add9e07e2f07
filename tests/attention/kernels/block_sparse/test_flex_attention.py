"""flex_attention equals the dense oracle for every pattern of positions.

And full attention with a bias of the distance as a GPU computes it: no n x n tensor, and the equation all the same.

On a processor flex_attention is torch's uncompiled reference, on a GPU compiled.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.testing import assert_close

from tests.attention.block_sparse_oracle import (
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
from xformer.attention.kernels.block_sparse import flex_attention as flex
from xformer.attention.kernels.block_sparse.flex_attention import (
    BLOCK,
    SHORTEST,
    block_mask,
    flex_supports,
    flex_supports_dense,
    padded_length,
)
from xformer.core.mask import Mask
from xformer.layers.initialise import initialise
from xformer.position.alibi import ALiBi, LinearBias
from xformer.position.base import PositionContext
from xformer.position.t5 import T5
from xformer.position.transformer_xl import TransformerXL

all_variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
both_directions = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
# On a CPU flex_attention runs in the tracer, which looks at the gradient of whatever it is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


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
