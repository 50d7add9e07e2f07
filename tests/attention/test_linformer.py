"""Linformer against equation 7 with E and F written out as matrices."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xformer.attention.base import AttentionContext
from xformer.attention.linformer import Linformer
from xformer.core.bias import TableBias
from xformer.core.mask import Mask
from xformer.position.alibi import LinearBias

HEADS, DIM, LONGEST, RANK = 2, 4, 23, 5
PROJECTIONS: list[Any] = ["learned", "convolution", "mean"]
SHARINGS: list[Any] = ["none", "headwise", "key_value", "layerwise"]


class Learned(TableBias):
    def __init__(self) -> None:
        self.weight = torch.randn(HEADS, 2 * LONGEST + 1, generator=torch.Generator().manual_seed(3))

    def table(self, distances: Tensor) -> Tensor:
        return self.weight[:, distances + LONGEST]


BIASES: dict[str, TableBias | None] = {
    "none": None,
    "alibi": LinearBias(torch.tensor([0.5, 0.1])),
    "learned": Learned(),
}


def build(projection: Any = "learned", sharing: Any = "headwise", rank: int = RANK, layer: int = 0) -> Linformer:
    torch.manual_seed(layer)
    context = AttentionContext(HEADS, DIM, LONGEST, LONGEST, False, layer=layer)
    return Linformer(context, rank=rank, sharing=sharing, projection=projection)


def inputs(queries: int, keys: int | None = None, batch: int = 2) -> list[Tensor]:
    torch.manual_seed(1)
    keys = queries if keys is None else keys
    return [torch.randn(batch, HEADS, length, DIM) for length in (queries, keys, keys)]


def self_mask(length: int, padding: Tensor | None = None, positions: Tensor | None = None) -> Mask:
    positions = torch.arange(length)[None] if positions is None else positions
    return Mask(positions, positions, False, padding)


def matrix(attention: Linformer, weight: Tensor | None, places: Tensor, head: int) -> Tensor:
    """E for the real tokens at these positions, without the windows that hold none."""
    if attention.projection == "learned":
        assert weight is not None
        return weight[min(head, len(weight) - 1)][:, places]
    window = -(-LONGEST // RANK)
    rows = []
    for start in range(0, LONGEST, window):
        inside = (places >= start) & (places < start + window)
        if attention.projection == "mean":
            row = inside.float() / max(1, int(inside.sum()))
        else:
            assert weight is not None
            row = weight[min(head, len(weight) - 1)][0][(places - start).clamp(0, window - 1)] * inside
        if inside.any():
            rows.append(row)
    return torch.stack(rows)


def oracle(attention: Linformer, tensors: list[Tensor], mask: Mask, bias: TableBias | None) -> Tensor:
    query, key, value = tensors
    mixed = []
    for row in range(len(query)):
        real = torch.ones(key.shape[2], dtype=torch.bool) if mask.key_padding is None else mask.key_padding[row]
        places = mask.key_positions.expand(len(query), -1)[row][real]
        seen = mask.query_positions.expand(len(query), -1)[row]
        for head in range(HEADS):
            scores = query[row, head] @ key[row, head, real].T / DIM**0.5
            if bias is not None:
                scores = scores + bias.table(places[None] - seen[:, None])[head]
            e, f = (matrix(attention, w, places, head) for w in (attention.project_key, attention.project_value))
            mixed.append((scores @ e.T).softmax(-1) @ f @ value[row, head, real])
    return torch.stack(mixed).unflatten(0, (len(query), HEADS))


@pytest.mark.parametrize("padded", ["no", "right", "left"])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("length", [1, 2, 11, LONGEST])
def test_equals_equation_7(length: int, projection: str, sharing: str, name: str, padded: str) -> None:
    attention, bias, tensors = build(projection, sharing), BIASES[name], inputs(length)
    short, slots = -(-length // 2), torch.arange(length).expand(2, -1)
    mask = self_mask(length)
    if padded == "right":
        mask = self_mask(length, slots < torch.tensor([[length], [short]]))
    if padded == "left":
        start = torch.tensor([[0], [length - short]])
        mask = self_mask(length, slots >= start, (slots - start).clamp(min=0))
    expected = oracle(attention, tensors, mask, bias)
    assert_close(attention(*tensors, mask=mask, bias=bias), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_cross_attention(projection: str, name: str) -> None:
    attention, tensors = build(projection), inputs(7, 19)
    mask = Mask(torch.arange(7)[None] + 3, torch.arange(19)[None])
    expected = oracle(attention, tensors, mask, BIASES[name])
    assert_close(attention(*tensors, mask=mask, bias=BIASES[name]), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_padded_batch_equals_single_sequences(projection: str, name: str, side: str) -> None:
    attention, bias, tensors = build(projection), BIASES[name], inputs(LONGEST, batch=3)
    lengths, slots = [LONGEST, 9, 0], torch.arange(LONGEST).expand(3, -1)
    starts = torch.tensor([LONGEST - length if side == "left" else 0 for length in lengths])[:, None]
    padding = (slots >= starts) & (slots < starts + torch.tensor(lengths)[:, None])
    for content in tensors[1:]:
        content[~padding[:, None].expand(-1, HEADS, -1)] = float("nan")
    leaves = [tensor.requires_grad_() for tensor in tensors]
    mixed = attention(*leaves, mask=self_mask(LONGEST, padding, (slots - starts).clamp(min=0)), bias=bias)
    assert_close(mixed[2], torch.zeros_like(mixed[2]))
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(mixed.sum(), leaves))
    for row, length in enumerate(lengths[:2]):
        real = slice(int(starts[row]), int(starts[row]) + length)
        single = [tensor[row : row + 1, :, real] for tensor in tensors]
        alone = attention(*single, mask=self_mask(length), bias=bias)
        assert_close(mixed[row : row + 1, :, real], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_an_identity_projection_is_full_attention(projection: str, name: str) -> None:
    attention, tensors = build(projection, "key_value", rank=LONGEST), inputs(LONGEST)
    if attention.project_key is not None:
        whole = torch.eye(LONGEST) if projection == "learned" else torch.ones(1, 1)
        attention.project_key.data.copy_(whole)
    bias, distances = BIASES[name], torch.arange(LONGEST) - torch.arange(LONGEST)[:, None]
    added = None if bias is None else bias.table(distances)[None]
    expected = nn.functional.scaled_dot_product_attention(*tensors, attn_mask=added)
    assert_close(attention(*tensors, mask=self_mask(LONGEST), bias=bias), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_gradients_equal_the_equation_s(projection: str) -> None:
    attention, bias = build(projection, "none"), Learned()
    leaves = [*inputs(LONGEST), bias.weight, *attention.parameters()]
    for leaf in leaves:
        leaf.requires_grad_()
    mask = self_mask(LONGEST, torch.arange(LONGEST) < torch.tensor([[LONGEST], [14]]))
    towards = torch.randn(2, HEADS, LONGEST, DIM)
    both = attention(*leaves[:3], mask=mask, bias=bias), oracle(attention, leaves[:3], mask, bias)
    found, expected = (torch.autograd.grad((mixed * towards).sum(), leaves) for mixed in both)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_gradcheck(projection: str) -> None:
    attention = build(projection).double()
    tensors = [tensor.double().requires_grad_() for tensor in inputs(6, batch=1)]
    bias = LinearBias(torch.tensor([0.5, 0.1], dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda *qkv: attention(*qkv, mask=self_mask(6), bias=bias), tensors, fast_mode=True)


@pytest.mark.parametrize(
    ("sharing", "projection", "numbers"),
    [
        ("none", "learned", 2 * HEADS * RANK * LONGEST),
        ("headwise", "learned", 2 * RANK * LONGEST),
        ("key_value", "learned", RANK * LONGEST),
        ("layerwise", "learned", RANK * LONGEST),
        ("headwise", "convolution", 2 * 5),
        ("none", "mean", 0),
    ],
)
def test_sharing_is_what_the_paper_counts(sharing: str, projection: str, numbers: int) -> None:
    first, second = build(projection, sharing), build(projection, sharing, layer=1)
    second.share_with(first)
    layers = 1 if sharing == "layerwise" else 2
    assert sum(p.numel() for p in nn.ModuleList([first, second]).parameters()) == layers * numbers


def test_layers_that_share_have_one_projection_and_never_reset_it() -> None:
    first, second = build(sharing="layerwise"), build(sharing="layerwise", layer=1)
    tensors, mask = inputs(LONGEST), self_mask(LONGEST)
    with pytest.raises(RuntimeError, match="share_with"):
        second(*tensors, mask=mask)
    second.share_with(first)
    before = second(*tensors, mask=mask)
    second.reset_parameters()
    assert_close(second(*tensors, mask=mask), before)
    assert_close(first(*tensors, mask=mask), before)
    assert second.project_key is first.project_key


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_no_tensor_is_quadratic(projection: Any, biased: bool) -> None:
    def largest(length: int) -> int:
        context = AttentionContext(HEADS, DIM, length, length, False)
        attention = Linformer(context, rank=RANK, sharing="headwise", projection=projection)
        tensors = [tensor.requires_grad_() for tensor in inputs(length, batch=1)]
        bias = BIASES["alibi"] if biased else None
        with LargestTensor() as recorder:
            attention(*tensors, mask=self_mask(length), bias=bias).sum().backward()
        return recorder.numel

    assert largest(1024) <= 2.1 * largest(512)


@pytest.mark.parametrize(("rank", "told"), [(65, True), (64, False)])
def test_a_rank_above_the_length_is_said_aloud(rank: int, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    for layer in range(2):
        context = AttentionContext(2, 4, 64, 64, causal=False, layer=layer)
        Linformer(context, rank=rank, sharing="headwise", projection="learned")
    assert [f"attention.rank={rank} is more than the 64 keys" in text for text in caplog.messages] == [True] * told
