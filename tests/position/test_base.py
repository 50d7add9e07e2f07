"""What the schemes that act on scores have in common: they know distances only, in whatever blocks these come."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.core.mask import Mask
from xformer.layers.initialise import initialise
from xformer.layers.multi_head import MultiHeadAttention
from xformer.position.alibi import ALiBi
from xformer.position.base import PositionContext
from xformer.position.relative import Relative
from xformer.position.rotary import Rotary
from xformer.position.t5 import T5
from xformer.position.transformer_xl import TransformerXL

HEADS, HEAD_DIM, MAX_LENGTH = 2, 4, 8
BIASES = {
    "alibi": (ALiBi, {}),
    "t5": (T5, {"buckets": 8, "max_distance": 16}),
    "relative": (Relative, {"clip": 3, "share_heads": False}),
    "transformer_xl": (TransformerXL, {"base": 100.0}),
}
SCHEMES = BIASES | {"rotary": (Rotary, {"base": 100.0, "fraction": 1.0})}


def build(name, causal=False):
    scheme, keywords = SCHEMES[name]
    position = scheme(PositionContext(HEADS * HEAD_DIM, HEADS, HEAD_DIM, 2, MAX_LENGTH, causal), **keywords)
    for parameter in position.parameters():  # large enough to be seen
        torch.nn.init.normal_(parameter)
    return position.double()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", SCHEMES)
def test_moving_all_positions_changes_nothing(name, causal):
    """Also beyond the length that the model was built for, as `extrapolates` says."""
    position, length = build(name, causal), 3 * MAX_LENGTH
    context = AttentionContext(HEADS, HEAD_DIM, MAX_LENGTH, MAX_LENGTH, causal)
    attention = MultiHeadAttention(Full, context, HEADS * HEAD_DIM, dropout=0.0, gain=1.0).double()
    x = torch.randn(2, length, HEADS * HEAD_DIM, dtype=torch.float64)

    def attend(positions):
        return attention(x, mask=Mask(positions, positions, causal), position=position)

    start = attend(torch.arange(length)[None])
    assert position.extrapolates
    assert_close(attend(torch.arange(length)[None] + 4321), start)
    assert_close(attend(torch.arange(length)[None] + torch.tensor([[7], [300]])), start)
    assert not torch.allclose(attend(2 * torch.arange(length)[None]), start)


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("spread", [1, 37])
def test_blocks_of_gathered_keys_get_the_dense_values(name, rows, spread):
    """3 x 2 blocks of 4 queries; each block reads keys of its own, in any order."""
    bias = build(name).bias(1)
    positions = torch.arange(24) * spread + torch.arange(rows)[:, None] * 5
    keys = torch.stack([torch.randperm(24)[:7] for _ in range(6)]).view(3, 2, 7)
    query = torch.randn(2, HEADS, 24, HEAD_DIM, dtype=torch.float64)
    dense = positions[:, None, :] - positions[:, :, None]
    blocks = positions[:, keys][..., None, :] - positions.view(rows, 3, 2, 4)[..., None]  # b 3 2 4 7

    index = keys[:, :, None].expand(2, HEADS, 3, 2, 4, 7)
    gathered = bias.scores(query, dense).expand(2, -1, -1, -1).view(2, HEADS, 3, 2, 4, 24).gather(-1, index)
    scores = bias.scores(query.view(2, HEADS, 3, 2, 4, HEAD_DIM), blocks)
    assert_close(scores.expand_as(gathered), gathered)

    weights = torch.rand(2, HEADS, 3, 2, 4, 7, dtype=torch.float64)
    scattered = torch.zeros(2, HEADS, 3, 2, 4, 24, dtype=torch.float64).scatter(-1, index, weights)
    if bias.adds_values:
        expected = bias.values(scattered.view(2, HEADS, 24, 24), dense).view(2, HEADS, 3, 2, 4, HEAD_DIM)
        assert_close(bias.values(weights, blocks), expected)
    else:
        assert bias.values(weights, blocks) is None


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("layout", ["window", "far"])
@pytest.mark.parametrize("name", BIASES)
def test_memory_goes_with_the_distances_given(name, layout):
    """64 blocks of 16 queries that read 32 keys each: nothing is as large as queries x keys or scores x features."""
    blocks, queries, keys = 64, 16, 32
    length = blocks * queries
    starts = torch.arange(0, length, queries)[:, None]
    near, far = starts + torch.arange(-16, 16), (starts + torch.arange(keys) * 31) % length
    key_positions = near if layout == "window" else far
    distances = (key_positions[:, None, :] - (starts + torch.arange(queries))[:, :, None])[None]
    query = torch.randn(1, HEADS, blocks, queries, HEAD_DIM, dtype=torch.float64, requires_grad=True)
    bias = build(name).bias(0)

    with LargestTensor() as largest:
        scores = bias.scores(query, distances)
        total = (scores * scores).sum()
        if bias.adds_values:
            total = total + bias.values(scores, distances).square().sum()
        if total.requires_grad:
            total.backward()
    given = HEADS * distances.numel()
    assert given <= largest.numel <= 2.5 * given < HEADS * length * length / 10


@pytest.mark.parametrize("name", SCHEMES)
def test_first_values_depend_on_the_seed_alone(name):
    states = []
    for seed in (1, 1, 2):
        position = build(name)
        initialise(position, seed)
        states.append(torch.cat([p.flatten() for p in position.parameters()] or [torch.zeros(0)]))
    assert torch.equal(states[0], states[1])
    assert len(states[0]) == 0 or not torch.isclose(states[0], states[2]).any()
