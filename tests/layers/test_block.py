"""One layer: against torch's own layers, and with the memory that cross-attention reads."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.architecture.tiny import (
    D_MODEL,
    HEADS,
    HIDDEN,
    LENGTH,
    copy_tower,
    encoder_decoder,
    randomised,
    stack,
)
from tests.contracts.variants import self_mask
from xformer.architecture.encoder import Encoder
from xformer.core.memory import Memory
from xformer.layers.block import Block
from xformer.position.base import Position, PositionContext

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
SHAPE: tuple[Any, ...] = (D_MODEL, HEADS, HIDDEN, 0.0, "gelu")
NOWHERE = Position(PositionContext(D_MODEL, HEADS, D_MODEL // HEADS, 1, LENGTH, False))


def with_cross(norm: str) -> Any:
    """A decoder's tower of one layer that reads a memory."""
    return randomised(encoder_decoder(norm=norm, vectors=True, layers=1)).decoder


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_it_is_torchs_encoder_layer(norm: str) -> None:
    ours = randomised(stack(Encoder, norm=norm, vectors=True, layers=1)).tower
    theirs = nn.TransformerEncoderLayer(*SHAPE, batch_first=True, norm_first=norm == "pre").eval()
    copy_tower(ours, nn.ModuleList([theirs]))
    x = torch.randn(2, 9, D_MODEL)
    assert_close(ours.block(0)(x, self_mask(9, False), NOWHERE, 0), theirs(x), **CLOSE)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_with_cross_attention_it_is_torchs_decoder_layer_whole_and_step_by_step(norm: str) -> None:
    ours, theirs = with_cross(norm), nn.TransformerDecoderLayer(*SHAPE, batch_first=True, norm_first=norm == "pre")
    copy_tower(ours, nn.ModuleList([theirs.eval()]))
    block: Block = ours.block(0)
    x, hidden = torch.randn(2, 5, D_MODEL), torch.randn(2, 7, D_MODEL)
    memory = Memory(hidden, torch.arange(7)[None], None)
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    expected = theirs(x, hidden, tgt_mask=causal, tgt_is_causal=True)
    assert_close(block(x, self_mask(5, True), NOWHERE, 0, memory=memory), expected, **CLOSE)
    state = block.init_state(5, memory)
    steps = [block(x[:, i : i + 1], self_mask(1, True, start=i), NOWHERE, 0, state=state) for i in range(5)]
    assert_close(torch.cat(steps, dim=1), expected, **CLOSE)


def test_cross_attention_without_a_memory_is_refused() -> None:
    block = with_cross("pre").block(0)
    assert len(block.mixers) == 2
    with pytest.raises(ValueError, match="needs a memory"):
        block(torch.randn(1, 3, D_MODEL), self_mask(3, True), NOWHERE, 0)
    with pytest.raises(ValueError, match="needs a memory"):
        block.init_state(3)
