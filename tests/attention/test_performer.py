"""Performer against its equation written out: every pair of a query and a key, in float64."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xformer.attention import performer_bidirectional, performer_causal, performer_sweep
from xformer.attention.base import AttentionContext
from xformer.attention.features import RELU_FLOOR, RandomFeatures, orthogonal
from xformer.attention.performer import Performer
from xformer.core.bias import TableBias
from xformer.core.mask import Mask
from xformer.position.alibi import LinearBias

HEADS, DIM = 2, 8
CHUNK, FEATURES = 16, 24
LENGTHS = [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 53]


class Clipped(TableBias):
    """A learned table, constant from half its length on; it says so only where `reach` is given."""

    def __init__(self, weight: Tensor, reach: int | None) -> None:
        self.weight, self.half = weight, weight.shape[1] // 2
        if reach is not None:
            self.reach = reach

    def table(self, distances: Tensor) -> Tensor:
        return self.weight[:, distances.clamp(-self.half, self.half) + self.half]


def biases() -> dict[str, TableBias | None]:
    weight = 2 * torch.randn(HEADS, 2 * 5 + 1, generator=torch.Generator().manual_seed(7))
    wide = 2 * torch.randn(HEADS, 2 * 21 + 1, generator=torch.Generator().manual_seed(8))
    return {
        "none": None,
        "alibi": LinearBias(torch.tensor([0.5, 0.01])),
        "clipped": Clipped(weight, 5),
        "clipped_beyond_a_chunk": Clipped(wide, 21),
        "unknown": Clipped(weight, None),
    }


BIASES = list(biases())


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel in (performer_bidirectional, performer_causal, performer_sweep):
        monkeypatch.setattr(kernel, "CHUNK", CHUNK)
    for kernel in (performer_bidirectional, performer_causal):
        monkeypatch.setattr(kernel, "FEATURES_AT_A_TIME", 3 * CHUNK * FEATURES)  # three heads: some groups are not full


def build(causal: bool, features: int = FEATURES, kernel: Any = "exp", interval: int | None = None) -> Performer:
    torch.manual_seed(0)
    context = AttentionContext(HEADS, DIM, 64, 64, causal)
    return Performer(context, features=features, kernel=kernel, redraw_interval=interval)


def inputs(queries: int, keys: int | None = None, batch: int = 2, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    keys = queries if keys is None else keys
    query, key, value = (torch.randn(batch, HEADS, length, DIM) for length in (queries, keys, keys))
    return query * scale, key * scale, value


def self_mask(length: int, causal: bool, padding: Tensor | None = None, positions: Tensor | None = None) -> Mask:
    positions = torch.arange(length)[None] if positions is None else positions
    return Mask(positions, positions, causal, padding)


def phi(x: Tensor, projection: Tensor, kernel: str) -> Tensor:
    """Lemma 1 and the generalised kernel of Choromanski et al. 2021, without the factor that cancels."""
    x = x / x.shape[-1] ** 0.25
    if kernel == "relu":
        return (x @ projection.T).clamp(min=0) + RELU_FLOOR
    return torch.exp(x @ projection.T) * torch.exp(-(x.norm(dim=-1, keepdim=True) ** 2) / 2)


def oracle(module: Performer, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: TableBias | None) -> Tensor:
    query, key, value = query.double(), key.double(), value.double()
    projection, kernel = module.log_features.projection.double(), module.log_features.kernel
    weights = phi(query, projection, kernel) @ phi(key, projection, kernel).mT
    distances = mask.key_positions[:, None, :] - mask.query_positions[:, :, None]
    if bias is not None:
        weights = weights * bias.table(distances).double().transpose(0, 1).exp()
    if mask.causal:
        weights = weights * (distances <= 0).unsqueeze(1)
    if mask.key_padding is not None:
        weights = weights * mask.key_padding[:, None, None, :]
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights @ value / total.clamp(min=1e-300), 0.0)


@pytest.mark.parametrize("kernel", ["exp", "relu"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_equation(length: int, name: str, causal: bool, kernel: str) -> None:
    attention, bias = build(causal, kernel=kernel), biases()[name]
    query, key, value = inputs(length)
    mask = self_mask(length, causal)
    expected = oracle(attention, query, key, value, mask, bias)
    assert_close(attention(query, key, value, mask=mask, bias=bias).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize(("queries", "keys"), [(1, 40), (7, 33), (40, 19)])
def test_queries_and_keys_of_different_length(queries: int, keys: int, name: str, causal: bool) -> None:
    attention, bias = build(causal), biases()[name]
    query, key, value = inputs(queries, keys)
    mask = Mask(torch.arange(queries)[None] + 12, torch.arange(keys)[None], causal)
    expected = oracle(attention, query, key, value, mask, bias)
    assert_close(attention(query, key, value, mask=mask, bias=bias).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
def test_a_padded_batch_equals_single_sequences(name: str, causal: bool, side: str) -> None:
    attention, bias = build(causal), biases()[name]
    query, key, value = inputs(41, batch=3)
    lengths = [41, 23, 0]
    slots = torch.arange(41).expand(3, -1)
    starts = torch.tensor([41 - length if side == "left" else 0 for length in lengths])[:, None]
    padding = (slots >= starts) & (slots < starts + torch.tensor(lengths)[:, None])
    key[~padding[:, None, :].expand(-1, HEADS, -1)] = 1e4
    value[~padding[:, None, :].expand(-1, HEADS, -1)] = float("nan")
    mask = self_mask(41, causal, padding, (slots - starts).clamp(min=0))
    query.requires_grad_()
    mixed = attention(query, key, value, mask=mask, bias=bias)
    mixed.sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert_close(mixed[2], torch.zeros_like(mixed[2]))
    for row, length in enumerate(lengths[:2]):
        real = slice(int(starts[row]), int(starts[row]) + length)
        single = [tensor[row : row + 1, :, real] for tensor in (query, key, value)]
        alone = attention(*single, mask=self_mask(length, causal), bias=bias)
        assert_close(mixed[row : row + 1, :, real], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_no_bit_of_the_past_depends_on_the_future(scale: float, name: str) -> None:
    attention, bias = build(causal=True), biases()[name]
    query, key, value = inputs(3 * CHUNK + 5, scale=scale)
    before = attention(query, key, value, mask=self_mask(query.shape[2], True), bias=bias)
    for cut in (1, CHUNK // 2, CHUNK, 2 * CHUNK + 3, query.shape[2] - 1):
        for factor in (3.0, -1.0, 50.0):
            for late in (query, key, value):
                kept = late.clone()
                late[:, :, cut:] *= factor
                after = attention(query, key, value, mask=self_mask(query.shape[2], True), bias=bias)
                late.copy_(kept)
                assert_close(after[:, :, :cut], before[:, :, :cut], atol=1e-6, rtol=1e-6)


def test_large_norms_lose_nothing_bidirectionally() -> None:
    attention = build(causal=False)
    query, key, value = inputs(40, scale=12.0)
    mask = self_mask(40, False)
    mixed = attention(query, -query + key * 0.1, value, mask=mask)
    assert_close(mixed.double(), oracle(attention, query, -query + key * 0.1, value, mask, None), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_no_norm_gives_nan(scale: float, name: str, causal: bool) -> None:
    attention, bias = build(causal), biases()[name]
    tensors = [tensor.requires_grad_() for tensor in inputs(40, scale=scale)]
    mixed = attention(*tensors, mask=self_mask(40, causal), bias=bias)
    assert mixed.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(mixed.sum(), tensors))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["none", "clipped", "alibi", "unknown"])
def test_gradients_equal_the_equation_s(name: str, causal: bool) -> None:
    attention, bias = build(causal), biases()[name]
    tensors = [tensor.requires_grad_() for tensor in inputs(37)]
    weight = bias.weight.requires_grad_() if isinstance(bias, Clipped) else None
    wanted = [*tensors, *([] if weight is None else [weight])]
    mask = self_mask(37, causal, torch.arange(37) < torch.tensor([[37], [30]]))
    towards = torch.randn(2, HEADS, 37, DIM)
    found = torch.autograd.grad((attention(*tensors, mask=mask, bias=bias) * towards).sum(), wanted)
    expected = torch.autograd.grad((oracle(attention, *tensors, mask, bias) * towards).sum(), wanted)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel", ["exp", "relu"])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_where_chunks_hold_nothing_but_padding(causal: bool, kernel: str) -> None:
    attention, slots = build(causal, kernel=kernel), torch.arange(3 * CHUNK + 5)
    tensors = [tensor.requires_grad_() for tensor in inputs(len(slots), batch=3)]
    begin, end = torch.tensor([[2 * CHUNK + 1], [0], [5]]), torch.tensor([[len(slots)], [CHUNK], [5]])
    real = (slots >= begin) & (slots < end)
    mask = self_mask(len(slots), causal, real, (slots - begin).clamp(min=0))
    towards = torch.randn(3, HEADS, len(slots), DIM) * real[:, None, :, None]
    found = torch.autograd.grad((attention(*tensors, mask=mask) * towards).sum(), tensors)
    expected = torch.autograd.grad((oracle(attention, *tensors, mask, None) * towards).sum(), tensors)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_a_decay_loses_no_digits_far_from_the_beginning() -> None:
    attention, bias = build(causal=True), LinearBias(torch.tensor([0.5, 0.01]))
    query, key, value = inputs(53)
    positions = torch.arange(53)[None]
    near, far = (
        attention(query, key, value, mask=self_mask(53, True, None, positions + start), bias=bias)
        for start in (0, 1_000_000)
    )
    assert_close(far, near, atol=0.0, rtol=0.0)


@pytest.mark.parametrize("kernel", ["exp", "relu"])
@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck(causal: bool, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for chunked in (performer_bidirectional, performer_causal, performer_sweep):
        monkeypatch.setattr(chunked, "CHUNK", 2)
    torch.manual_seed(0)
    context = AttentionContext(HEADS, 2, 5, 5, causal)
    attention = Performer(context, features=3, kernel=kernel, redraw_interval=None).double()
    tensors = [tensor[..., :2].double().contiguous().requires_grad_() for tensor in inputs(5, batch=1)]
    slopes = torch.tensor([0.3, 0.1], dtype=torch.float64, requires_grad=True)

    def mixed(query: Tensor, key: Tensor, value: Tensor, slopes: Tensor) -> Tensor:
        return attention(query, key, value, mask=self_mask(5, causal), bias=LinearBias(slopes))

    assert torch.autograd.gradcheck(mixed, (*tensors, slopes), fast_mode=True)


@pytest.mark.parametrize("first", [1, 3, 30])
@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("name", BIASES)
def test_steps_equal_forward(name: str, side: str, first: int) -> None:
    attention, bias = build(causal=True), biases()[name]
    query, key, value = inputs(35)
    skipped = torch.tensor([[0], [2 if side == "left" else 0]])
    positions = (torch.arange(35) - skipped).clamp(min=0)
    padding = None if side == "none" else torch.arange(35) >= skipped
    expected = attention(query, key, value, mask=self_mask(35, True, padding, positions), bias=bias)
    state, found = attention.init_state(35), []
    cuts = [0, *range(first, 36)]
    for start, stop in pairwise(cuts):
        part = slice(start, stop)
        mask = self_mask(0, True, None if padding is None else padding[:, part], positions[:, part])
        new = (tensor[:, :, part] for tensor in (query, key, value))
        found.append(attention.step(*new, state, mask=mask, bias=bias))
    assert state.length == 35
    real = slice(2, None) if side == "left" else slice(None)
    assert_close(torch.cat(found, dim=2)[:, :, real], expected[:, :, real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["none", "alibi", "clipped"])
def test_the_state_does_not_grow_and_follows_its_beams(name: str) -> None:
    attention, bias = build(causal=True), biases()[name]
    query, key, value = inputs(30)
    state, sizes = attention.init_state(30), []

    def step(index: int, rows: Tensor) -> Tensor:
        new = (tensor[rows, :, index : index + 1] for tensor in (query, key, value))
        return attention.step(*new, state, mask=self_mask(1, True, None, torch.tensor([[index]])), bias=bias)

    for index in range(28):
        step(index, torch.tensor([0, 1]))
        sizes.append(state.bytes)
    assert len(set(sizes[8:])) == 1
    state.reorder(torch.tensor([1, 1]))
    mixed = step(28, torch.tensor([1, 1]))
    assert_close(mixed[0], mixed[1])
    whole = attention(query, key, value, mask=self_mask(30, True), bias=bias)
    assert_close(mixed[0], whole[1, :, 28:29], atol=1e-5, rtol=1e-5)


def test_the_error_against_softmax_falls_with_the_root_of_the_features() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 1, 64, 16) * size for size in (0.25, 0.25, 1.0))
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value)

    def error(features: int) -> float:
        context = AttentionContext(1, 16, 64, 64, False)
        attention = Performer(context, features=features, kernel="exp", redraw_interval=None)
        errors = []
        for draw in range(24):
            attention.log_features.draw(draw)
            errors.append((attention(query, key, value, mask=self_mask(64, False)) - exact).square().mean())
        return float(torch.stack(errors).mean().sqrt())

    errors = [error(features) for features in (32, 128, 512, 2048)]
    rates = [math.log(a / b, 4) for a, b in pairwise(errors)]
    assert errors[-1] < 0.002
    assert all(0.4 < rate < 0.6 for rate in rates), rates


@pytest.mark.parametrize("kernel", ["exp", "relu"])
def test_the_feature_map_is_the_paper_s(kernel: Any) -> None:
    features = RandomFeatures(40, DIM, kernel)
    x = torch.randn(3, 5, DIM)
    assert_close(features(x).exp(), phi(x, features.projection, kernel))


def test_rows_are_orthogonal_blocks_with_norms_chi_of_d() -> None:
    rows = orthogonal(4 * 16 + 3, 16, torch.Generator().manual_seed(0))
    for block in rows.split(16):
        product = block @ block.T
        assert_close(product, product.diagonal().diag(), atol=1e-4, rtol=0.0)
    norms = orthogonal(4000, 16, torch.Generator().manual_seed(1)).square().sum(-1)
    assert abs(float(norms.mean()) - 16) < 0.4  # chi^2(16): mean 16, variance 32
    assert abs(float(norms.var()) - 32) < 4
    assert len(set(norms[:16].tolist())) == 16


def ranks() -> Iterator[Performer]:
    for _ in range(2):
        yield build(causal=True, interval=10)


def test_redrawing_depends_on_the_step_and_the_stored_seed_alone() -> None:
    one, other = ranks()
    first = one.log_features.projection.clone()
    drawn = []
    for step in range(31):
        one.before_batch(step)
        torch.rand(3)
        one.before_batch(step)  # a second batch of the same step
        other.before_batch(step)
        assert_close(one.log_features.projection, other.log_features.projection, atol=0.0, rtol=0.0)
        drawn.append(one.log_features.projection.clone())
    assert all(torch.equal(first, drawn[step]) for step in range(10))
    changes = [step for step in range(1, 31) if not torch.equal(drawn[step], drawn[step - 1])]
    assert changes == [10, 20, 30]


def test_a_resumed_run_goes_on_with_its_features() -> None:
    one = build(causal=True, interval=10)
    one.before_batch(10)
    resumed = build(causal=True, interval=10)
    resumed.log_features.reset_parameters()
    resumed.load_state_dict(one.state_dict())
    assert torch.equal(resumed.log_features.projection, one.log_features.projection)
    for module in (one, resumed):
        module.before_batch(20)
    assert torch.equal(resumed.log_features.projection, one.log_features.projection)


def test_neither_evaluation_nor_forward_redraws() -> None:
    attention = build(causal=True, interval=1)
    before = attention.log_features.projection.clone()
    attention.eval().before_batch(3)
    attention.train()
    query, key, value = inputs(5)
    attention(query, key, value, mask=self_mask(5, True))
    assert torch.equal(attention.log_features.projection, before)


def test_autocast_keeps_the_sums_in_float32() -> None:
    attention = build(causal=True)
    query, key, value = (tensor.bfloat16() for tensor in inputs(50))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attention(query, key, value, mask=self_mask(50, True))
    assert mixed.dtype == torch.bfloat16
    expected = oracle(attention, query, key, value, self_mask(50, True), None)
    assert_close(mixed.double(), expected, atol=1e-2, rtol=1e-2)


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
def test_no_tensor_is_quadratic(name: str, causal: bool) -> None:
    attention, bias = build(causal), biases()[name]

    def largest(length: int) -> int:
        tensors = [tensor.requires_grad_() for tensor in inputs(length, batch=1)]
        with LargestTensor() as recorder:
            attention(*tensors, mask=self_mask(length, causal), bias=bias).sum().backward()
        return recorder.numel

    assert largest(768) <= 2.1 * largest(384)
