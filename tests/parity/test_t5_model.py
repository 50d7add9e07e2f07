"""T5 as a whole: bucketed bias in both stacks, cross-attention without one, RMS norm, no linear biases.

Deviation, absorbed here: T5 does not divide its logits by sqrt(d), so our W_Q is theirs times sqrt(d).
"""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import T5Config, T5Model
from transformers.models.t5.modeling_t5 import T5Attention

from tests.contracts.variants import position_factory
from tests.parity.weights import SIZE, blocks, build, copy_linear, copy_module, padded, randomise, same_but_for_float32
from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.attention.full import Full
from xformer.position.base import PositionContext
from xformer.position.t5 import T5

BUCKETS, MAX_DISTANCE = 8, 20


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (BUCKETS, MAX_DISTANCE), (16, 64)])
def test_buckets(causal: bool, buckets: int, max_distance: int) -> None:
    """Equal but where log gives a whole number and float32 rounds theirs below it: there theirs is one bucket lower."""
    context = PositionContext(SIZE.d_model, SIZE.heads, SIZE.head_dim, 1, 9, causal)
    distances = torch.arange(-3 * max_distance, 3 * max_distance)
    ours = T5(context, buckets=buckets, max_distance=max_distance).bias(0).bucket(distances)
    theirs = T5Attention._relative_position_bucket(distances, not causal, buckets, max_distance)
    side = buckets if causal else buckets // 2
    exact = side // 2
    steps = torch.log(distances.abs().double() / exact) / torch.log(torch.tensor(max_distance / exact).double())
    on_boundary = ((steps * exact) - (steps * exact).round()).abs() < 1e-6
    assert torch.equal(ours[~on_boundary], theirs[~on_boundary])
    assert set((ours - theirs)[on_boundary].tolist()) <= {0, 1}


def copy_stack(ours: nn.Module, theirs: Any) -> None:
    for block, theirs_block in zip(blocks(ours), theirs.block, strict=True):
        attention, *rest = theirs_block.layer
        pairs = [(block.attention, attention.SelfAttention, attention.layer_norm)]
        if block.cross is not None:
            pairs.append((block.cross, rest[0].EncDecAttention, rest[0].layer_norm))
        for mine, other, norm in pairs:
            copy_linear(mine.branch.query, other.q.weight * SIZE.head_dim**0.5)
            copy_module(mine.branch.key, other.k)
            copy_module(mine.branch.value, other.v)
            copy_module(mine.branch.output, other.o)
            copy_module(mine.norm, norm)
        copy_module(block.feed_forward.branch.expand, rest[-1].DenseReluDense.wi)
        copy_module(block.feed_forward.branch.contract, rest[-1].DenseReluDense.wo)
        copy_module(block.feed_forward.norm, rest[-1].layer_norm)
    copy_module(ours.norm, theirs.final_layer_norm)  # type: ignore[arg-type]
    table = theirs.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    ours.position.weight.data.copy_(table)  # type: ignore[union-attr, operator]


T5_CONFIG = T5Config(
    vocab_size=11,
    d_model=SIZE.d_model,
    d_kv=SIZE.head_dim,
    d_ff=SIZE.feed_forward,
    num_layers=SIZE.layers,
    num_heads=SIZE.heads,
    relative_attention_num_buckets=BUCKETS,
    relative_attention_max_distance=MAX_DISTANCE,
    layer_norm_epsilon=1e-5,
    feed_forward_proj="relu",
    decoder_start_token_id=0,
)


def like_t5(theirs: Any) -> EncoderDecoder:
    position = position_factory("t5")
    position.keywords.update(buckets=BUCKETS, max_distance=MAX_DISTANCE)
    ours: EncoderDecoder = build(
        EncoderDecoder,
        30,
        norm_layer="rms",
        activation="relu",
        position=position,
        decoder_position=position,
        decoder_attention=Full,
        cross_attention=Full,
    )
    copy_stack(ours.tower, theirs.encoder)
    copy_stack(ours.decoder, theirs.decoder)
    return ours


def test_encoder_and_decoder() -> None:
    theirs = randomise(T5Model(T5_CONFIG))
    ours = like_t5(theirs)
    valid, source, target = padded([30, 12, 1], "right"), torch.randint(11, (3, 30)), torch.randint(11, (3, 27))
    output = theirs(input_ids=source, attention_mask=valid.long(), decoder_input_ids=target)
    memory = ours.encode(theirs.shared(source), valid)
    same_but_for_float32(memory.hidden[valid], output.encoder_last_hidden_state[valid])
    same_but_for_float32(ours.decode(theirs.shared(target), memory), output.last_hidden_state)
