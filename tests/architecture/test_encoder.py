"""The encoder: torch's own layers, written independently, give the same for the same weights."""

import pytest
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
    real,
    stack,
)
from xformer.architecture.encoder import Encoder

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
STYLES = [(norm, activation) for norm in ("pre", "post") for activation in ("relu", "gelu")]


@pytest.mark.parametrize(("norm", "activation"), STYLES)
@pytest.mark.parametrize("padded", [False, True])
def test_the_encoder_equals_torchs(norm: str, activation: str, padded: bool) -> None:
    ours = randomised(stack(Encoder, norm=norm, activation=activation, vectors=True))
    layer = nn.TransformerEncoderLayer(
        D_MODEL, HEADS, HIDDEN, 0.0, activation, batch_first=True, norm_first=norm == "pre"
    )
    theirs = nn.TransformerEncoder(
        layer, LAYERS, copy_last_norm(norm, ours.tower.norm), enable_nested_tensor=False
    ).eval()
    copy_tower(ours.tower, theirs.layers)
    x, mask = torch.randn(3, 9, D_MODEL), real([9, 4, 1], 9)
    expected = theirs(x, src_key_padding_mask=~mask if padded else None)
    shown = mask if padded else torch.ones_like(mask)
    assert_close(ours(x, mask if padded else None)[shown], expected[shown], **CLOSE)
