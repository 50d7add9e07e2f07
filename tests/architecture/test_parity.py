"""Our blocks and torch's own layers, written independently, give the same for the same weights."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.architecture.tiny import (
    D_MODEL,
    HEADS,
    HIDDEN,
    LAYERS,
    copy_tower,
    encoder_decoder,
    randomised,
    real,
    stack,
)
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
STYLES = [(norm, activation) for norm in ("pre", "post") for activation in ("relu", "gelu")]


def last_norm(norm: str, ours: nn.Module) -> nn.Module | None:
    if norm == "post":
        return None
    theirs = nn.LayerNorm(D_MODEL)
    theirs.load_state_dict(ours.state_dict())
    return theirs


@pytest.mark.parametrize(("norm", "activation"), STYLES)
@pytest.mark.parametrize("padded", [False, True])
def test_the_encoder_equals_torchs(norm: str, activation: str, padded: bool) -> None:
    ours = randomised(stack(Encoder, norm=norm, activation=activation, vectors=True))
    layer = nn.TransformerEncoderLayer(
        D_MODEL, HEADS, HIDDEN, 0.0, activation, batch_first=True, norm_first=norm == "pre"
    )
    theirs = nn.TransformerEncoder(layer, LAYERS, last_norm(norm, ours.tower.norm), enable_nested_tensor=False).eval()
    copy_tower(ours.tower, theirs.layers)
    x, mask = torch.randn(3, 9, D_MODEL), real([9, 4, 1], 9)
    expected = theirs(x, src_key_padding_mask=~mask if padded else None)
    shown = mask if padded else torch.ones_like(mask)
    assert_close(ours(x, mask if padded else None)[shown], expected[shown], **CLOSE)


def test_the_decoder_only_stack_equals_torchs_with_a_causal_mask() -> None:
    ours = randomised(stack(Decoder, vectors=True))
    layer = nn.TransformerEncoderLayer(D_MODEL, HEADS, HIDDEN, 0.0, "gelu", batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, LAYERS, last_norm("pre", ours.tower.norm), enable_nested_tensor=False)
    copy_tower(ours.tower, theirs.layers)
    x = torch.randn(2, 9, D_MODEL)
    causal = nn.Transformer.generate_square_subsequent_mask(9)
    assert_close(ours(x), theirs.eval()(x, mask=causal, is_causal=True), **CLOSE)


@pytest.mark.parametrize(("norm", "activation"), STYLES)
@pytest.mark.parametrize("padded", [False, True])
def test_the_encoder_decoder_equals_torchs(norm: str, activation: str, padded: bool) -> None:
    ours = randomised(encoder_decoder(norm=norm, activation=activation, vectors=True))
    shape = (D_MODEL, HEADS, HIDDEN, 0.0, activation)
    reader = nn.TransformerEncoderLayer(*shape, batch_first=True, norm_first=norm == "pre")
    writer = nn.TransformerDecoderLayer(*shape, batch_first=True, norm_first=norm == "pre")
    theirs = nn.Transformer(
        D_MODEL,
        HEADS,
        custom_encoder=nn.TransformerEncoder(reader, LAYERS, last_norm(norm, ours.tower.norm), False),
        custom_decoder=nn.TransformerDecoder(writer, LAYERS, last_norm(norm, ours.decoder.norm)),
        batch_first=True,
    )
    copy_tower(ours.tower, theirs.encoder.layers)
    copy_tower(ours.decoder, theirs.decoder.layers)
    theirs.eval()
    source, target, mask = torch.randn(3, 9, D_MODEL), torch.randn(3, 6, D_MODEL), real([9, 4, 1], 9)
    absent = ~mask if padded else None
    expected = theirs(
        source,
        target,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(6),
        tgt_is_causal=True,
        src_key_padding_mask=absent,
        memory_key_padding_mask=absent,
    )
    assert_close(ours(source, mask if padded else None, target), expected, **CLOSE)
