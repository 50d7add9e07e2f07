"""How blocks are made: the variance of the residual sum, and where norms stand."""

from typing import Any

import pytest
from torch import Tensor, nn

from tests.architecture.tiny import LAYERS, encoder_decoder, stack, tokens
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder


@pytest.mark.parametrize("kind", ["encoder", "decoder", "decoder with an encoder"])
def test_the_variance_at_the_start_does_not_grow_with_depth(kind: str) -> None:
    def variance(layers: int) -> Tensor:
        seen: list[Tensor] = []
        model: Any = (
            encoder_decoder(layers=layers)
            if "with" in kind
            else stack({"encoder": Encoder}.get(kind, Decoder), layers=layers)
        )
        tower = model.decoder if "with" in kind else model.tower
        tower.norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        model(tokens(8, 16))
        return seen[0].var()

    shallow = variance(1)
    assert 0.7 < shallow < 2
    for layers in (4, 32):
        assert 0.7 < variance(layers) / shallow < 1.4


@pytest.mark.parametrize("branches", [2, 3])
def test_every_branch_ends_in_a_layer_scaled_by_how_many_there_are(branches: int) -> None:
    """GPT-2: the residual sum has as many branches as each layer times the layers."""
    block: Any = (stack(Encoder).tower if branches == 2 else encoder_decoder().decoder).block(0)
    ends = [block.attention.branch.output, block.feed_forward.branch.contract]
    ends += [] if branches == 2 else [block.cross.branch.output]
    assert [end.gain for end in ends] == [(branches * LAYERS) ** -0.5] * branches
    assert block.attention.branch.query.gain == block.feed_forward.branch.expand.gain == 1


def test_a_last_norm_follows_where_the_sum_is_not_normalised_yet() -> None:
    assert isinstance(stack(Encoder, norm="pre").tower.norm, nn.LayerNorm)
    assert isinstance(stack(Encoder, norm="pre", norm_layer="rms").tower.norm, nn.RMSNorm)
    assert isinstance(stack(Encoder, norm="post").tower.norm, nn.Identity)
