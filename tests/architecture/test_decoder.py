"""The decoder-only stack: torch's own layers, written independently, give the same for the same weights."""

import torch
from torch import nn
from torch.testing import assert_close

from tests.architecture.tiny import (
    D_MODEL,
    HEADS,
    HIDDEN,
    LAYERS,
    copy_last_norm,
    copy_tower,
    randomised,
    stack,
)
from xformer.architecture.decoder import Decoder

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def test_the_decoder_only_stack_equals_torchs_with_a_causal_mask() -> None:
    ours = randomised(stack(Decoder, vectors=True))
    layer = nn.TransformerEncoderLayer(D_MODEL, HEADS, HIDDEN, 0.0, "gelu", batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, LAYERS, copy_last_norm("pre", ours.tower.norm), enable_nested_tensor=False)
    copy_tower(ours.tower, theirs.layers)
    x = torch.randn(2, 9, D_MODEL)
    causal = nn.Transformer.generate_square_subsequent_mask(9)
    assert_close(ours(x), theirs.eval()(x, mask=causal, is_causal=True), **CLOSE)
