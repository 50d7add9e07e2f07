"""Linformer: lucidrains' linformer with the same E and F, one pair for all heads of a layer."""

import pytest
import torch
from linformer import LinformerSelfAttention
from torch import nn

from tests.contracts.variants import self_mask
from tests.parity.weights import copy_attention, same
from xformer.attention.base import AttentionContext
from xformer.attention.linformer import Linformer
from xformer.layers.multi_head import MultiHeadAttention
from xformer.position.base import Position, PositionContext

WIDTH, HEADS, LONGEST, RANK = 16, 4, 12, 5


@pytest.mark.parametrize("length", [1, 7, LONGEST])
@pytest.mark.parametrize("sharing", ["headwise", "key_value"])
def test_self_attention(length: int, sharing: str) -> None:
    """Their share_kv shares W_K with W_V too; ours shares the projection alone, and is given theirs for both."""
    theirs = LinformerSelfAttention(WIDTH, LONGEST, RANK, HEADS, share_kv=sharing == "key_value").double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    head_dim = WIDTH // HEADS

    def attention(context: AttentionContext) -> Linformer:
        return Linformer(context, rank=RANK, sharing=sharing, projection="learned")  # type: ignore[arg-type]

    context = AttentionContext(HEADS, head_dim, LONGEST, LONGEST, False)
    ours = MultiHeadAttention(attention, context, WIDTH, dropout=0.0, gain=1.0).double()
    value = theirs.to_k if sharing == "key_value" else theirs.to_v
    copy_attention(ours, theirs.to_q, theirs.to_k, value, theirs.to_out)
    ours.mix.project_key.data.copy_(theirs.proj_k.T)
    if sharing == "headwise":
        ours.mix.project_value.data.copy_(theirs.proj_v.T)
    x = torch.randn(3, length, WIDTH, dtype=torch.float64)
    none = Position(PositionContext(WIDTH, HEADS, head_dim, 1, LONGEST, False))
    same(ours(x, mask=self_mask(length, False), position=none), theirs(x))
