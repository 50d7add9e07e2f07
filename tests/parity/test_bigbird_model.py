"""BigBird: Hugging Face's block-sparse layers with random blocks, on a layout that both can express.

Theirs are global in the first and in the last block, ours in the first ones. Attention does not know the order of its
keys, so the layouts are one: our block 1 is their last block, and the others move up by one. Our draws are set to the
random blocks that theirs drew, which they do in training only (without dropout here). In evaluation their random
blocks are all block 0, which then counts 1 + r times; ours counts once. The second test holds theirs to that, and so
explains the difference.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BigBirdConfig, BigBirdModel
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

from tests.parity.weights import SIZE, blocks, build, copy_attention, copy_module, padded, randomise, same
from xformer.architecture.encoder import Encoder
from xformer.attention.bigbird import BigBird

BLOCK, RANDOM = 4, 2


def theirs_of(length: int) -> Any:
    config = BigBirdConfig(
        vocab_size=11,
        hidden_size=SIZE.d_model,
        num_hidden_layers=SIZE.layers,
        num_attention_heads=SIZE.heads,
        intermediate_size=SIZE.feed_forward,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
        block_size=BLOCK,
        num_random_blocks=RANDOM,
        max_position_embeddings=length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return randomise(BigBirdModel(config, add_pooling_layer=False))


def ours_of(theirs: Any, length: int) -> Any:
    def attention(context: Any) -> BigBird:
        return BigBird(context, block=BLOCK, global_blocks=2, window_blocks=3, random_blocks=RANDOM)

    ours = build(Encoder, length, norm="post", attention=attention)
    for block, layer in zip(blocks(ours), theirs.encoder.layer, strict=True):
        own = layer.attention.self
        copy_attention(block.attention.branch, own.query, own.key, own.value, layer.attention.output.dense)
        copy_module(block.attention.norm, layer.attention.output.LayerNorm)
        copy_module(block.feed_forward.branch.expand, layer.intermediate.dense)
        copy_module(block.feed_forward.branch.contract, layer.output.dense)
        copy_module(block.feed_forward.norm, layer.output.LayerNorm)
    return ours


def order(count: int) -> list[int]:
    """Their block in the place of each of ours."""
    return [0, count - 1, *range(1, count - 1)]


def reorder(x: Tensor) -> Tensor:
    """Tokens of theirs in our order."""
    parts = x.unflatten(1, (-1, BLOCK))
    return parts[:, order(parts.shape[1])].flatten(1, 2)


def draws_for(random: list[np.ndarray], count: int) -> Tensor:
    """The numbers from which ours draws their blocks: each the rank among what is left to choose from."""
    draws, place = torch.zeros(len(random), count, RANDOM, dtype=torch.long), order(count)
    for head, rows in enumerate(random):
        for row, drawn in enumerate(rows):
            at = place.index(row + 1)
            left = [block for block in range(2, count) if abs(block - at) > 1]
            for number, block in enumerate(drawn):
                draws[head, at, number] = left.index(place.index(block))
                left.remove(place.index(block))
    return draws


@pytest.mark.parametrize("count", [10, 13, 16])
def test_random_blocks_in_training(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    length = count * BLOCK
    theirs = theirs_of(length).train()
    ours, drawn, draw = ours_of(theirs, length), [], BigBirdBlockSparseAttention._bigbird_block_rand_mask_with_head

    def recorded(*args: Any, **kwargs: Any) -> list[np.ndarray]:
        drawn.append(draw(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(BigBirdBlockSparseAttention, "_bigbird_block_rand_mask_with_head", recorded)
    valid = padded([length, length - 2 * BLOCK - 1, 3], "right")
    output = theirs(torch.randint(11, valid.shape), attention_mask=valid.long(), output_hidden_states=True)
    assert len(drawn) == SIZE.layers
    assert not np.array_equal(drawn[0], drawn[1])
    for block, random in zip(blocks(ours), drawn, strict=True):
        block.attention.branch.mix.draws.copy_(draws_for(random, count))
    kept = reorder(valid[..., None])[..., 0]
    hidden = ours(reorder(output.hidden_states[0]), kept)
    same(hidden[kept], reorder(output.last_hidden_state)[kept])
    blocks(ours)[0].attention.branch.mix.draws.add_(1)
    others = ours(reorder(output.hidden_states[0]), kept)
    assert (others - hidden)[kept].abs().max() > 1e-3


def test_their_evaluation_counts_block_0_again_for_every_random_block() -> None:
    count, heads = 9, SIZE.heads
    layer = theirs_of(count * BLOCK).encoder.layer[0].attention.self
    x = torch.randn(1, count * BLOCK, SIZE.d_model, dtype=torch.float64)
    masks = BigBirdModel.create_masks_for_block_sparse_attn(torch.ones(1, count * BLOCK, dtype=torch.float64), BLOCK)
    blocked, band, rows, columns = masks
    found, _ = layer(x, band, rows, columns, blocked, blocked)

    query, key, value = (
        project(x).unflatten(-1, (heads, -1)).transpose(1, 2) for project in (layer.query, layer.key, layer.value)
    )
    block = torch.arange(count * BLOCK) // BLOCK
    mine, other = block[:, None], block[None]
    everything = (mine == 0) | (mine == count - 1)
    counts = ((mine - other).abs() <= 1) | (other == 0) | (other == count - 1) | everything
    counts = counts.double() + RANDOM * ((other == 0) & ~everything)
    weights = (query @ key.mT * SIZE.head_dim**-0.5).exp() * counts
    same(found, (weights / weights.sum(-1, keepdim=True) @ value).transpose(1, 2).flatten(-2))
