"""Relative positions of causal models: rotary as in Hugging Face's LLaMA, ALiBi as in its BLOOM.

LLaMA also has RMS norm, SwiGLU, no biases and fewer heads of keys and values. BLOOM's own activation is the approximate
GELU; both are given the exact one here. Both compute their position terms in float32. BLOOM's padding is -1.8e308 in
float64 and its softmax float32, which makes NaN of padding on the left, so that it is compared in float32.
"""

import pytest
import torch
from torch import nn
from transformers import BloomConfig, BloomModel, LlamaConfig, LlamaModel
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from tests.contracts.variants import position_factory
from tests.parity.weights import (
    SIZE,
    blocks,
    build,
    copy_attention,
    copy_linear,
    copy_module,
    padded,
    positions_of,
    randomise,
    same_but_for_float32,
)
from xformer.architecture.decoder import Decoder
from xformer.position.alibi import ALiBi
from xformer.position.base import PositionContext
from xformer.position.rotary import Rotary

PADDINGS = {
    "no padding": padded([9, 9, 9], "right"),
    "right": padded([9, 5, 1], "right"),
    "left": padded([9, 5, 1], "left"),
}


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 20])
def test_alibi_slopes_and_their_use(heads: int) -> None:
    """BLOOM adds slope x key position, which for one query differs from ours by a constant that softmax ignores."""
    theirs = build_alibi_tensor(torch.ones(1, 7, dtype=torch.long), heads, torch.float32).view(heads, 1, 7)
    context = PositionContext(4 * heads, heads, 4, 1, 7, True)
    distances = torch.arange(7) - torch.arange(7)[:, None]
    ours = ALiBi(context).bias(0).table(distances)
    forbidden = distances > 0
    same_but_for_float32(
        ours.masked_fill(forbidden, -torch.inf).softmax(-1),
        theirs.expand_as(ours).masked_fill(forbidden, -torch.inf).softmax(-1),
    )


@pytest.mark.parametrize(("head_dim", "base"), [(2, 10000.0), (8, 10000.0), (64, 500000.0)])
def test_rope(head_dim: int, base: float) -> None:
    query, key = torch.randn(2, 2, 3, 50, head_dim)
    positions = torch.stack((torch.arange(50), torch.arange(50) + 100))
    rope = {"rope_type": "default", "rope_theta": base}
    config = LlamaConfig(hidden_size=3 * head_dim, num_attention_heads=3, rope_parameters=rope)
    expected = apply_rotary_pos_emb(query, key, *LlamaRotaryEmbedding(config)(query, positions))
    ours = Rotary(PositionContext(3 * head_dim, 3, head_dim, 1, 50, True), base=base, fraction=1.0)
    for x, turned in zip((query, key), expected, strict=True):
        # An angle of 100 has a last digit of 8e-6 in float32, and the two round it differently.
        torch.testing.assert_close(ours.rotate(x, positions), turned, atol=5e-5, rtol=0)


LLAMA = LlamaConfig(
    vocab_size=11,
    hidden_size=SIZE.d_model,
    num_hidden_layers=SIZE.layers,
    num_attention_heads=SIZE.heads,
    num_key_value_heads=2,
    intermediate_size=SIZE.feed_forward,
    rms_norm_eps=1e-5,
)


def like_llama(theirs: LlamaModel) -> Decoder:
    ours: Decoder = build(
        Decoder,
        9,
        norm_layer="rms",
        activation="swiglu",
        position=position_factory("rotary"),
        key_value_heads=2,
    )
    for block, layer in zip(blocks(ours), theirs.layers, strict=True):
        own, mlp = layer.self_attn, layer.mlp
        copy_attention(block.attention.branch, own.q_proj, own.k_proj, own.v_proj, own.o_proj)
        copy_module(block.attention.norm, layer.input_layernorm)
        copy_linear(block.feed_forward.branch.expand, torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)))
        copy_module(block.feed_forward.branch.contract, mlp.down_proj)
        copy_module(block.feed_forward.norm, layer.post_attention_layernorm)
    copy_module(ours.tower.norm, theirs.norm)
    return ours


@pytest.mark.parametrize("padding", PADDINGS)
def test_llama(padding: str) -> None:
    theirs = randomise(LlamaModel(LLAMA))
    ours = like_llama(theirs)
    valid, tokens = PADDINGS[padding], torch.randint(11, (3, 9))
    positions = positions_of(valid)
    output = theirs(tokens, attention_mask=valid.long(), position_ids=positions).last_hidden_state
    hidden = ours(theirs.embed_tokens(tokens), valid, positions)
    same_but_for_float32(hidden[valid], output[valid])


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("heads", [4, 6])
def test_bloom(padding: str, heads: int) -> None:
    width = 4 * heads
    config = BloomConfig(vocab_size=11, hidden_size=width, n_layer=2, n_head=heads)
    theirs = randomise(BloomModel(config)).float()
    size = type(SIZE)(d_model=width, layers=2, heads=heads, feed_forward=4 * width)
    ours = build(Decoder, 9, size=size, position=position_factory("alibi")).float()
    for block, layer in zip(blocks(ours), theirs.h, strict=True):
        layer.mlp.gelu_impl = nn.GELU()
        fused, own = layer.self_attention.query_key_value, block.attention.branch
        weights, biases = fused.weight.view(heads, 3, 4, width), fused.bias.view(heads, 3, 4)
        for at, mine in enumerate((own.query, own.key, own.value)):
            copy_linear(mine, weights[:, at].flatten(0, 1), biases[:, at].flatten())
        copy_module(own.output, layer.self_attention.dense)
        copy_module(block.attention.norm, layer.input_layernorm)
        copy_module(block.feed_forward.branch.expand, layer.mlp.dense_h_to_4h)
        copy_module(block.feed_forward.branch.contract, layer.mlp.dense_4h_to_h)
        copy_module(block.feed_forward.norm, layer.post_attention_layernorm)
    copy_module(ours.tower.norm, theirs.ln_f)
    valid, tokens = PADDINGS[padding], torch.randint(11, (3, 9))
    embedded = theirs.word_embeddings_layernorm(theirs.word_embeddings(tokens))
    output = theirs(tokens, attention_mask=valid.long()).last_hidden_state
    hidden = ours(embedded, valid, positions_of(valid))
    torch.testing.assert_close(hidden[valid], output[valid], atol=1e-5, rtol=1e-5)
