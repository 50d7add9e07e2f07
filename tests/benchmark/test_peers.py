"""Other people's implementations compute what ours do."""

import pytest
import torch
from torch import nn

from xformer.benchmark.modules import (
    Mixing,
    Projected,
    Shape,
    training_or_forward_step,
)
from xformer.benchmark.peers import PEERS, FlexWindow, Peer

SHAPE = Shape(2, 8, 64, 128, causal=False)
BIGBIRD = Shape(2, 2, 8, 1024, causal=False)
CAUSAL = Shape(2, 8, 64, 128, causal=True)


def tensors(shape: Shape) -> tuple[torch.Tensor, ...]:
    size = shape.batch, shape.heads, shape.length, shape.head_dim
    return tuple(torch.randn(size, requires_grad=True) for _ in range(3))


def test_a_window_is_the_peers_but_for_the_edge_of_its_blocks() -> None:
    """local-attention reads whole neighbouring blocks: with two blocks these are everything, as a wide window is."""
    pytest.importorskip("local_attention")
    peer = next(peer for peer in PEERS if peer.name == "local-attention")
    inputs = tensors(SHAPE)
    ours = Mixing({"attention": "local", "window": 127}, SHAPE)(*inputs)
    torch.testing.assert_close(peer.make(SHAPE)(*inputs), ours, atol=1e-5, rtol=1e-5)


def test_bigbird_alone_is_what_lies_between_its_projections() -> None:
    pytest.importorskip("transformers")
    whole, alone = (
        peer.make(BIGBIRD)
        for name in ("BigBird", "BigBird alone")
        for peer in PEERS
        if peer.name.startswith(f"{name} (")
    )
    attention = whole[0].module
    for projection in (attention.query, attention.key, attention.value):
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    tokens = torch.randn(2, 1024, 16)
    split = tokens.view(2, 1024, 2, 8).transpose(1, 2)
    torch.testing.assert_close(alone(split, split, split).transpose(1, 2).flatten(2), whole[0](tokens))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("shape", [SHAPE, CAUSAL])
def test_a_window_is_that_of_flex_attention(shape: Shape) -> None:
    inputs = tuple(tensor.detach() for tensor in tensors(shape))  # on a CPU it has no backward
    expected = FlexWindow(shape, compiled=False)(*inputs)
    ours = Mixing({"attention": "local", "window": 64}, shape)(*inputs)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.shortest == 1], ids=lambda peer: peer.name)
def test_a_peer_takes_what_ours_takes(peer: Peer) -> None:
    if not peer.supports(SHAPE):
        pytest.skip(f"{peer.package} is not installed, or {peer.name} needs a CUDA device")
    ours: nn.Module = Projected(peer.ours, SHAPE) if peer.projects else Mixing(peer.ours, SHAPE)
    inputs = (torch.randn(2, 128, 512, requires_grad=True),) if peer.projects else tensors(SHAPE)
    theirs = peer.make(SHAPE)
    assert theirs(*inputs).shape == ours(*inputs).shape
    for module in (theirs, ours):
        gradients = training_or_forward_step(module, inputs, training=True)()
        assert isinstance(gradients, tuple)
        assert all(gradient is not None for gradient in gradients[: len(inputs)])
