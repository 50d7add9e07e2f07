"""The shared projection: parity with torch's own, and grouped heads against explicit repetition."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.architecture.tiny import D_MODEL, HEADS, copy_attention, randomised, real
from tests.contracts.variants import ATTENTIONS, attention_factory, self_mask
from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.core.memory import Memory
from xformer.errors import ConfigError
from xformer.layers.multi_head import CrossAttention, MultiHeadAttention
from xformer.position.base import Position, PositionContext

HEAD_DIM = D_MODEL // HEADS
SELF = AttentionContext(HEADS, HEAD_DIM, 16, 16, causal=False)
CROSS = AttentionContext(HEADS, HEAD_DIM, 16, 16, causal=False, cross=True)
NOWHERE = Position(PositionContext(D_MODEL, HEADS, HEAD_DIM, 1, 16, False))


def build(groups: int | None = None, attention: str = "full", causal: bool = False) -> MultiHeadAttention:
    context = AttentionContext(HEADS, HEAD_DIM, 16, 16, causal)
    made = attention_factory(attention)
    layer = MultiHeadAttention(made, context, D_MODEL, dropout=0.0, gain=1.0, key_value_heads=groups)
    return randomised(layer).eval()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_self_attention_equals_torchs(causal: bool, padded: bool) -> None:
    ours, theirs = build(causal=causal), nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True)
    copy_attention(ours, theirs)
    x, mask = torch.randn(3, 9, D_MODEL), real([9, 4, 1], 9) if padded else None
    later = torch.ones(9, 9, dtype=torch.bool).triu(1) if causal else None
    expected, _ = theirs(x, x, x, key_padding_mask=None if mask is None else ~mask, attn_mask=later)
    assert_close(ours(x, mask=self_mask(9, causal, mask), position=NOWHERE), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_cross_attention_equals_torchs(padded: bool) -> None:
    ours = randomised(CrossAttention(Full, CROSS, D_MODEL, dropout=0.0, gain=1.0))
    theirs = nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True)
    copy_attention(ours, theirs)
    x, hidden, mask = torch.randn(3, 5, D_MODEL), torch.randn(3, 9, D_MODEL), real([9, 4, 1], 9) if padded else None
    memory = Memory(hidden, torch.arange(9)[None], mask)
    expected, _ = theirs(x, hidden, hidden, key_padding_mask=None if mask is None else ~mask)
    assert_close(ours(x, mask=self_mask(5, True), memory=ours.project(memory)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_heads_are_heads_with_repeated_weights(groups: int, attention: str) -> None:
    grouped, whole = build(groups, attention), build(None, attention)
    state = grouped.state_dict()
    for name in ("key", "value"):
        for kind in ("weight", "bias"):
            rows = state[f"{name}.{kind}"].view(groups, HEAD_DIM, -1)
            each = torch.cat([rows[head * groups // HEADS] for head in range(HEADS)])
            state[f"{name}.{kind}"] = each.squeeze(-1) if kind == "bias" else each
    whole.load_state_dict(state)
    x = torch.randn(2, 9, D_MODEL)
    about = {"mask": self_mask(9, False), "position": NOWHERE}
    assert_close(grouped(x, **about), whole(x, **about), atol=1e-5, rtol=1e-4)


def test_multi_query_attention_is_shazeers_equation() -> None:
    layer, x = build(1), torch.randn(2, 9, D_MODEL)
    query = layer.query(x).view(2, 9, HEADS, HEAD_DIM)
    key, value = layer.key(x), layer.value(x)
    weights = (torch.einsum("bnhk,bmk->bhnm", query, key) / HEAD_DIM**0.5).softmax(-1)
    mixed = torch.einsum("bhnm,bmv->bnhv", weights, value)
    assert_close(layer(x, mask=self_mask(9, False), position=NOWHERE), layer.output(mixed.flatten(-2)))
    assert layer.key.weight.numel() * HEADS == layer.query.weight.numel()


@pytest.mark.parametrize("groups", [0, 3, 8, -1])
def test_heads_that_do_not_divide_are_refused(groups: int) -> None:
    with pytest.raises(ConfigError) as caught:
        build(groups)
    assert str(caught.value) == (
        f"architecture.key_value_heads={groups} does not divide size.heads=4; use 1, 2, 4, or null for all of them."
    )
