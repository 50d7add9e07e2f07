"""Absolute positions: Hugging Face's BERT (post-norm), ViT (pre-norm) and GPT-2 (pre-norm, causal).

Ours begins with what theirs gives after its embeddings, and must then be equal to the end. GPT-2's own activation is
the approximate GELU; both are given the exact one here.
"""

from typing import Any

import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, ViTConfig, ViTModel

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
    same,
)
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder
from xformer.data.facts import ImageFacts
from xformer.layers.patches import PatchEmbedding

COMMON: dict[str, Any] = {
    "hidden_size": SIZE.d_model,
    "num_hidden_layers": SIZE.layers,
    "num_attention_heads": SIZE.heads,
    "intermediate_size": SIZE.feed_forward,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}


def test_bert() -> None:
    theirs = randomise(BertModel(BertConfig(vocab_size=11, **COMMON), add_pooling_layer=False))
    ours = build(Encoder, 9, norm="post")
    for block, layer in zip(blocks(ours), theirs.encoder.layer, strict=True):
        own = layer.attention.self
        copy_attention(block.attention.branch, own.query, own.key, own.value, layer.attention.output.dense)
        copy_module(block.attention.norm, layer.attention.output.LayerNorm)
        copy_module(block.feed_forward.branch.expand, layer.intermediate.dense)
        copy_module(block.feed_forward.branch.contract, layer.output.dense)
        copy_module(block.feed_forward.norm, layer.output.LayerNorm)
    valid = padded([9, 4, 1], "right")
    output = theirs(torch.randint(11, valid.shape), attention_mask=valid.long(), output_hidden_states=True)
    hidden = ours(output.hidden_states[0], valid)
    same(hidden[valid], output.last_hidden_state[valid])
    assert (hidden[valid] - output.hidden_states[0][valid]).abs().mean() > 0.1


def test_vit() -> None:
    theirs, ours = _vit(build(Encoder, 10))
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    same(ours(theirs.embeddings(images)), theirs(images).last_hidden_state)


def test_vit_from_the_pixels() -> None:
    theirs, ours = _vit(build(Encoder, 10, position=position_factory("learned")))
    image = ImageFacts(channels=3, height=12, width=12, mean=[0.0] * 3, std=[1.0] * 3)
    ours.embedding = PatchEmbedding(SIZE.d_model, 4, mean=image.mean, std=image.std, class_token=True).double()
    patches = theirs.embeddings.patch_embeddings.projection
    copy_linear(ours.embedding.projection, patches.weight.flatten(1), patches.bias)
    # Our tables hold what is added, divided by sqrt(d).
    copy_linear(ours.embedding.class_token, theirs.embeddings.cls_token[0] / SIZE.d_model**0.5)
    copy_linear(ours.tower.position.table, theirs.embeddings.position_embeddings[0] / SIZE.d_model**0.5)
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    same(ours(images), theirs(images).last_hidden_state)


def _vit(ours: Any) -> tuple[Any, Any]:
    """Theirs, and ours with its blocks."""
    theirs = randomise(ViTModel(ViTConfig(image_size=12, patch_size=4, **COMMON), add_pooling_layer=False))
    for block, layer in zip(blocks(ours), theirs.layers, strict=True):
        own = layer.attention
        copy_attention(block.attention.branch, own.q_proj, own.k_proj, own.v_proj, own.o_proj)
        copy_module(block.attention.norm, layer.layernorm_before)
        copy_module(block.feed_forward.branch.expand, layer.mlp.fc1)
        copy_module(block.feed_forward.branch.contract, layer.mlp.fc2)
        copy_module(block.feed_forward.norm, layer.layernorm_after)
    copy_module(ours.tower.norm, theirs.layernorm)
    return theirs, ours


def gpt2_config(vocabulary: int = 11, length: int = 9) -> GPT2Config:
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=length,
        n_embd=SIZE.d_model,
        n_layer=SIZE.layers,
        n_head=SIZE.heads,
        n_inner=SIZE.feed_forward,
        activation_function="gelu",
    )


def copy_gpt2(ours: Decoder, theirs: GPT2Model) -> None:
    for block, layer in zip(blocks(ours), theirs.h, strict=True):
        # Their Conv1D holds the transposed matrix, and one for queries, keys and values.
        weights, biases = layer.attn.c_attn.weight.T.chunk(3), layer.attn.c_attn.bias.chunk(3)
        own = block.attention.branch
        for mine, weight, bias in zip((own.query, own.key, own.value), weights, biases, strict=True):
            copy_linear(mine, weight, bias)
        copy_linear(own.output, layer.attn.c_proj.weight.T, layer.attn.c_proj.bias)
        copy_module(block.attention.norm, layer.ln_1)
        copy_linear(block.feed_forward.branch.expand, layer.mlp.c_fc.weight.T, layer.mlp.c_fc.bias)
        copy_linear(block.feed_forward.branch.contract, layer.mlp.c_proj.weight.T, layer.mlp.c_proj.bias)
        copy_module(block.feed_forward.norm, layer.ln_2)
    copy_module(ours.tower.norm, theirs.ln_f)


def test_gpt2() -> None:
    theirs, ours = randomise(GPT2Model(gpt2_config())), build(Decoder, 9)
    copy_gpt2(ours, theirs)
    tokens = torch.randint(11, (3, 9))
    for valid in (padded([9, 9, 9], "right"), padded([9, 5, 1], "right"), padded([9, 5, 1], "left")):
        positions = positions_of(valid)
        output = theirs(tokens, attention_mask=valid.long(), position_ids=positions, output_hidden_states=True)
        hidden = ours(output.hidden_states[0], valid, positions)
        same(hidden[valid], output.last_hidden_state[valid])
