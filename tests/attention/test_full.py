"""Full attention with every relative position scheme, against the equation with everything written out."""

import pytest
import torch
from torch.testing import assert_close

from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.core.bias import dense_scores
from xformer.core.mask import Mask
from xformer.layers.multi_head import MultiHeadAttention
from xformer.position.alibi import ALiBi
from xformer.position.base import Position, PositionContext
from xformer.position.relative import Relative
from xformer.position.rotary import Rotary
from xformer.position.t5 import T5
from xformer.position.transformer_xl import TransformerXL

HEADS, HEAD_DIM, LENGTH = 3, 4, 9
BIASES = {
    "alibi": (ALiBi, {}),
    "t5": (T5, {"buckets": 8, "max_distance": 16}),
    "relative": (Relative, {"clip": 3, "share_heads": False}),
    "transformer_xl": (TransformerXL, {"base": 100.0}),
}
SCHEMES = BIASES | {"none": (Position, {}), "rotary": (Rotary, {"base": 100.0, "fraction": 0.5})}


def build(name, causal):
    scheme, keywords = SCHEMES[name]
    position = scheme(PositionContext(HEADS * HEAD_DIM, HEADS, HEAD_DIM, 1, LENGTH, causal), **keywords)
    for parameter in position.parameters():  # large enough to be seen
        torch.nn.init.normal_(parameter)
    return position.double()


def layer(causal):
    context = AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, causal)
    return MultiHeadAttention(Full, context, HEADS * HEAD_DIM, dropout=0.0, gain=1.0).double()


def qkv(queries, keys, batch=2):
    return [torch.randn(batch, HEADS, n, HEAD_DIM, dtype=torch.float64) for n in (queries, keys, keys)]


def padded(side):
    """Three rows, the second and third with padding: the mask and the positions that suit it."""
    if side is None:
        return None, torch.arange(LENGTH)[None]
    real = torch.arange(LENGTH) < torch.tensor([[LENGTH], [LENGTH - 2], [1]])
    real = real if side == "right" else real.flip(-1)
    return real, (real.cumsum(-1) - 1).clamp(min=0)


def oracle(query, key, value, mask, bias):
    """One query at a time over the keys it may read; Shaw's vectors added to keys and values themselves."""
    out = torch.zeros_like(query)
    shape = (len(query), -1, -1)
    distances = mask.distances().expand(*shape)
    allowed = torch.ones_like(distances, dtype=torch.bool)
    if mask.causal:
        allowed &= distances <= 0
    if mask.key_padding is not None:
        allowed &= mask.key_padding[:, None]
    for b in range(len(query)):
        for h in range(HEADS):
            for i in range(query.shape[2]):
                keys = allowed[b, i].nonzero().flatten()
                if not len(keys):
                    continue
                k, v, apart = key[b, h, keys], value[b, h, keys], distances[b, i, keys]
                added = torch.zeros(())
                if bias.adds_values:
                    rows = apart.clamp(bias.low, bias.low + bias.keys.shape[1] - 1) - bias.low
                    k, v = k + bias.keys[h, rows], v + bias.values_table[h, rows]
                else:
                    added = bias.scores(query[b : b + 1, :, i : i + 1], apart[None, None])[0, h, 0]
                weights = (k @ query[b, h, i] / HEAD_DIM**0.5 + added).softmax(-1)
                out[b, h, i] = weights @ v
    return out


@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", BIASES)
def test_equals_the_equation(name, causal, side):
    real, positions = padded(side)
    mask, bias = Mask(positions, positions, causal, real), build(name, causal).bias(0)
    query, key, value = qkv(LENGTH, LENGTH, batch=3)
    context = AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, causal)

    mixed = Full(context)(query, key, value, mask=mask, bias=bias)
    assert_close(mixed, oracle(query, key, value, mask, bias))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("queries", [torch.arange(6, 9), torch.tensor([0, 1]), torch.tensor([8, 2, 5])])
def test_queries_and_keys_of_different_length(name, causal, queries):
    mask, bias = Mask(queries[None], torch.arange(LENGTH)[None], causal), build(name, causal).bias(0)
    query, key, value = qkv(len(queries), LENGTH)
    context = AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, causal)

    assert_close(Full(context)(query, key, value, mask=mask, bias=bias), oracle(query, key, value, mask, bias))


@pytest.mark.parametrize("name", [*BIASES, None])
def test_a_query_with_nothing_to_read_yields_zeros_and_no_nan(name):
    real = torch.tensor([[False, False, True, True], [False] * 4])
    positions = torch.arange(4)[None]
    position = build(name or "none", True)
    inputs = [x.requires_grad_() for x in qkv(4, 4)]
    context = AttentionContext(HEADS, HEAD_DIM, 4, 4, True)

    mixed = Full(context)(*inputs, mask=Mask(positions, positions, True, real), bias=position.bias(0))
    assert (mixed[0, :, :2] == 0).all()
    assert (mixed[1] == 0).all()
    assert (mixed[0, :, 2:] != 0).all()
    mixed.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in [*inputs, *position.parameters()])
    assert (inputs[2].grad[1] == 0).all()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", BIASES)
def test_gradients(name, causal):
    position, mask = build(name, causal), Mask(torch.arange(3)[None], torch.arange(4)[None], causal)
    parameters, attention = tuple(position.parameters()), Full(AttentionContext(HEADS, HEAD_DIM, 4, 4, causal))
    inputs = tuple(x.requires_grad_() for x in qkv(3, 4, batch=1))

    def mix(query, key, value, *_):
        bias = position.bias(0)
        return attention(bias.shift(query), key, value, mask=mask, bias=bias)

    assert torch.autograd.gradcheck(mix, (*inputs, *parameters))
    mix(*inputs).square().sum().backward()
    assert all((parameter.grad != 0).any() for parameter in parameters)


@pytest.mark.parametrize("queries", [torch.arange(5), torch.arange(3, 9), torch.tensor([4])])
@pytest.mark.parametrize("name", ["alibi", "t5", "relative", "transformer_xl"])
def test_windows_of_all_distances_are_the_scores(name, queries):
    position = build(name, False)
    mask = Mask(queries[None], torch.arange(7)[None])
    query, bias = qkv(len(queries), 7)[0], position.bias(0)
    windows, expected = dense_scores(bias, query, mask), bias.scores(query, mask.distances())

    assert_close(windows, expected)
    upstream, parameters = torch.randn_like(windows), [*position.parameters()]
    ours, theirs = (
        torch.autograd.grad(scores, parameters, upstream, allow_unused=True) if parameters else ()
        for scores in (windows, expected)
    )
    assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("queries", "keys"),
    [([[0, 1, 3]], [[0, 1, 2, 3]]), ([[0], [2]], [[0, 1, 2, 3]]), ([[1, 2]], [[0, 1, 2], [5, 6, 7]])],
)
def test_other_positions_take_the_general_path(queries, keys):
    bias, mask = build("t5", False).bias(0), Mask(torch.tensor(queries), torch.tensor(keys))
    query = qkv(len(queries[0]), len(keys[0]))[0]
    assert_close(dense_scores(bias, query, mask), bias.scores(query, mask.distances()))


@pytest.mark.parametrize("side", [None, "left"])
@pytest.mark.parametrize("chunks", [[1] * LENGTH, [4, 1, 3, 1]])
@pytest.mark.parametrize("name", SCHEMES)
def test_steps_equal_forward(name, chunks, side):
    real, positions = padded(side)
    position, attention = build(name, True), layer(True)
    x = torch.randn(3, LENGTH, HEADS * HEAD_DIM, dtype=torch.float64)
    expected = attention(x, mask=Mask(positions, positions, True, real), position=position)

    state, steps, start = attention.mix.init_state(LENGTH), [], 0
    for size in chunks:
        new = slice(start, start + size)
        mask = Mask(positions[:, new], positions[:, new], True, None if real is None else real[:, new])
        steps.append(attention(x[:, new], mask=mask, position=position, state=state))
        start += size
    kept = torch.ones(3, LENGTH, dtype=torch.bool) if real is None else real
    assert_close(torch.cat(steps, dim=1)[kept], expected[kept])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", SCHEMES)
def test_left_padding_changes_nothing(name, causal):
    """A padded row equals its tokens alone, whatever the padding holds."""
    real, positions = padded("left")
    position, attention = build(name, causal), layer(causal)
    x = torch.randn(3, LENGTH, HEADS * HEAD_DIM, dtype=torch.float64)
    whole = attention(x, mask=Mask(positions, positions, causal, real), position=position)

    for row in range(3):
        alone = positions[row : row + 1, real[row]]
        single = attention(x[row : row + 1, real[row]], mask=Mask(alone, alone, causal), position=position)
        assert_close(whole[row, real[row]], single[0])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", SCHEMES)
def test_bfloat16_autocast(name, causal):
    position, attention = build(name, causal).float(), layer(causal).float()
    x, positions = torch.randn(2, LENGTH, HEADS * HEAD_DIM), torch.arange(LENGTH)[None]
    mask = Mask(positions, positions, causal)
    expected = attention(x, mask=mask, position=position)

    with torch.autocast("cpu", torch.bfloat16):
        mixed = attention(x, mask=mask, position=position)
    assert mixed.dtype == torch.bfloat16
    assert_close(mixed.float(), expected, rtol=0.05, atol=0.1)
    mixed.float().square().sum().backward()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in position.parameters())
