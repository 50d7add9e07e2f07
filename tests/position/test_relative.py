"""Shaw's key and value terms against their equations with every vector written out."""

import pytest
import torch
from torch.testing import assert_close

from xformer.position.base import PositionContext
from xformer.position.relative import Relative

HEADS, HEAD_DIM, CLIP = 2, 4, 3


def relative(causal, share_heads=False, clip=CLIP):
    return Relative(PositionContext(8, HEADS, HEAD_DIM, 2, 16, causal), clip=clip, share_heads=share_heads).double()


def vectors(table, distances, causal):
    """a[clip(j - i, -c, c)] for every pair: 1 h q k d, of the tables' 2 c + 1 vectors or their first c + 1."""
    index = distances.clamp(-CLIP, 0 if causal else CLIP) + CLIP
    return table.expand(HEADS, -1, -1)[:, index].transpose(0, 1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("share_heads", [True, False])
@pytest.mark.parametrize("rows", [1, 2])
def test_terms(causal, share_heads, rows):
    scheme = relative(causal, share_heads)
    distances = torch.randint(-9, 1 if causal else 9, (rows, 5, 7))
    query = torch.randn(2, HEADS, 5, HEAD_DIM, dtype=torch.float64)
    weights = torch.rand(2, HEADS, 5, 7, dtype=torch.float64)

    for layer in range(2):
        bias = scheme.bias(layer)
        keys, values = (vectors(tables[layer], distances, causal) for tables in (scheme.keys, scheme.values))
        assert_close(bias.scores(query, distances), (query[..., None, :] * keys).sum(-1) / HEAD_DIM**0.5)
        assert_close(bias.values(weights, distances), (weights[..., None] * values).sum(-2))
    assert bias.adds_values


@pytest.mark.parametrize(("causal", "share_heads", "shape"), [(True, False, (2, 4, 4)), (False, True, (1, 7, 4))])
def test_tables_hold_the_distances_that_can_be_read(causal, share_heads, shape):
    assert {tuple(parameter.shape) for parameter in relative(causal, share_heads).parameters()} == {shape}


def test_gradients():
    bias = relative(False).bias(0)
    distances = torch.randint(-9, 9, (1, 3, 4))
    query = torch.randn(1, HEADS, 3, HEAD_DIM, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, HEADS, 3, 4, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda query, _: bias.scores(query, distances), (query, bias.keys))
    assert torch.autograd.gradcheck(lambda weights, _: bias.values(weights, distances), (weights, bias.values_table))


def test_small_weights_add_up_in_bfloat16():
    """A thousand weights of 1/1000 in one bin: added up in bfloat16, as GPUs would, they stop at a quarter."""
    bias = relative(True).bfloat16().bias(0)
    weights = torch.full((1, HEADS, 1, 1000), 0.001, dtype=torch.bfloat16)

    mixed = bias.values(weights, torch.full((1, 1, 1000), -50))
    assert_close(mixed[0, :, 0], bias.values_table[:, 0], rtol=0.02, atol=1e-3)
