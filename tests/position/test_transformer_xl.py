"""Transformer-XL's four terms against their equation with every R_{i-j} written out."""

import math

import pytest
import torch
from torch.testing import assert_close

from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.core.mask import Mask
from xformer.layers.multi_head import MultiHeadAttention
from xformer.position.base import PositionContext
from xformer.position.transformer_xl import TransformerXL

HEADS, HEAD_DIM, LAYERS = 2, 4, 2


def transformer_xl(causal=False, d_model=8):
    scheme = TransformerXL(PositionContext(d_model, HEADS, HEAD_DIM, LAYERS, 16, causal), base=100.0).double()
    for parameter in scheme.parameters():  # u and v start so small that a test might not see them
        torch.nn.init.normal_(parameter)
    return scheme


def sinusoid(offset, width):
    """R_offset: all sines, then all cosines."""
    frequencies = [100.0 ** (-2 * m / width) for m in range(width // 2)]
    return torch.tensor(
        [math.sin(offset * f) for f in frequencies] + [math.cos(offset * f) for f in frequencies], dtype=torch.float64
    )


def four_terms(query, key, distances, scheme, layer):
    """The paper's A^rel for one row of the batch, entry by entry."""
    matrix = scheme.projections[layer].weight.view(HEADS, HEAD_DIM, -1)
    total = torch.empty(HEADS, *distances.shape, dtype=torch.float64)
    for i in range(distances.shape[0]):
        for j in range(distances.shape[1]):
            r = sinusoid(-int(distances[i, j]), matrix.shape[-1])
            for h in range(HEADS):
                q, k, position = query[h, i], key[h, j], matrix[h] @ r
                total[h, i, j] = q @ k + q @ position + scheme.u[h] @ k + scheme.v[h] @ position
    return total / HEAD_DIM**0.5


def scores(query, key, distances, bias):
    shifted = bias.shift(query)
    return shifted @ key.transpose(-1, -2) / HEAD_DIM**0.5 + bias.scores(shifted, distances)


LAYOUTS = {
    "square": torch.arange(6) - torch.arange(6)[:, None],  # few distinct: by distance
    "last query": torch.arange(-6, 1)[None],
    "gathered": torch.tensor([40, 3, 900, 17]) - torch.tensor([11, 700, 12])[:, None],  # many: by position
    "unsorted": torch.randint(-900, 900, (4, 3)),  # no sums of a query's and a key's offset
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("d_model", [8, 7])
def test_four_terms(layout, d_model):
    distances = LAYOUTS[layout]
    scheme = transformer_xl(d_model=d_model)
    query = torch.randn(2, HEADS, distances.shape[0], HEAD_DIM, dtype=torch.float64)
    key = torch.randn(2, HEADS, distances.shape[1], HEAD_DIM, dtype=torch.float64)

    for layer in range(LAYERS):
        expected = torch.stack([four_terms(*row, distances, scheme, layer) for row in zip(query, key, strict=True)])
        assert_close(scores(query, key, distances[None], scheme.bias(layer)), expected)


@pytest.mark.parametrize("layout", ["square", "gathered"])
def test_rows_with_positions_of_their_own(layout):
    scheme = transformer_xl()
    distances = torch.stack((LAYOUTS[layout], LAYOUTS[layout] * 2 - 5))
    query = torch.randn(2, HEADS, distances.shape[1], HEAD_DIM, dtype=torch.float64)
    key = torch.randn(2, HEADS, distances.shape[2], HEAD_DIM, dtype=torch.float64)

    expected = torch.stack([four_terms(*row, scheme, 1) for row in zip(query, key, distances, strict=True)])
    assert_close(scores(query, key, distances, scheme.bias(1)), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_through_the_shared_projections(causal):
    """`MultiHeadAttention` shifts the query, and so adds the third term."""
    scheme, x, positions = transformer_xl(causal), torch.randn(1, 5, 8, dtype=torch.float64), torch.arange(5)[None]
    context = AttentionContext(HEADS, HEAD_DIM, 5, 5, causal, layer=1)
    attention = MultiHeadAttention(Full, context, 8, dropout=0.0, gain=1.0).double()
    query, key, value = (
        project(x).view(5, HEADS, HEAD_DIM).transpose(0, 1)
        for project in (attention.query, attention.key, attention.value)
    )

    terms = four_terms(query, key, positions - positions.T, scheme, layer=1)
    if causal:
        terms = terms.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), float("-inf"))
    expected = attention.output((terms.softmax(-1) @ value).transpose(0, 1).flatten(1))
    assert_close(attention(x, mask=Mask(positions, positions, causal), position=scheme)[0], expected)


@pytest.mark.parametrize("layout", ["square", "gathered"])
def test_gradients_reach_every_parameter(layout):
    scheme, distances = transformer_xl(), LAYOUTS[layout][None]
    query = torch.randn(1, HEADS, distances.shape[1], HEAD_DIM, dtype=torch.float64, requires_grad=True)
    key = torch.randn(1, HEADS, distances.shape[2], HEAD_DIM, dtype=torch.float64)
    parameters = (scheme.projections[0].weight, scheme.u, scheme.v)

    assert torch.autograd.gradcheck(
        lambda query, *_: scores(query, key, distances, scheme.bias(0)), (query, *parameters)
    )


def test_far_distances_are_as_exact_as_float32_angles_are():
    scheme = TransformerXL(PositionContext(16, HEADS, HEAD_DIM, 1, 16, True), base=10000.0)
    query, positions = torch.randn(1, HEADS, 4, HEAD_DIM), torch.tensor([0, 1, 8000, 8191])
    distances = positions[None, None] - positions[None, :, None]

    single = scheme.bias(0).scores(query, distances)
    assert_close(single.double(), scheme.double().bias(0).scores(query.double(), distances), rtol=0, atol=2e-3)
