"""Performer: lucidrains' performer-pytorch with the same random features.

Two deviations are absorbed. Theirs adds 1e-4 to every feature, after a scale that is the largest feature of all keys;
ours adds nothing, since what is added to the keys' lets the future into causal attention. So their kernel is given
eps = 0, and the first test shows that it is the eps that differs. Their causal sum has an eps of its own, 1e-6.
"""

import math
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.contracts.variants import self_mask
from tests.parity.weights import same
from xformer.attention.base import AttentionContext
from xformer.attention.performer import Performer

# Of their imports.
pytestmark = [
    pytest.mark.filterwarnings("ignore:distutils Version classes are deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The distutils package is deprecated:DeprecationWarning"),
]

HEADS, DIM, FEATURES = 2, 8, 20


def both(kernel: Literal["exp", "relu"], causal: bool = False) -> tuple[Performer, Any]:
    from performer_pytorch import FastAttention  # here, so that the marks above cover it

    torch.manual_seed(0)
    theirs = FastAttention(DIM, FEATURES, generalized_attention=kernel == "relu", causal=causal)
    ours = Performer(
        AttentionContext(HEADS, DIM, 300, 300, causal), features=FEATURES, kernel=kernel, redraw_interval=None
    )
    ours.log_features.projection.copy_(theirs.projection_matrix)
    return ours.double(), theirs.double()


def qkv(length: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, HEADS, length, DIM, dtype=torch.float64) for _ in range(3))


def without_eps(monkeypatch: pytest.MonkeyPatch) -> None:
    from performer_pytorch import performer_pytorch

    monkeypatch.setattr(performer_pytorch, "softmax_kernel", partial(performer_pytorch.softmax_kernel, eps=0.0))


@pytest.mark.parametrize("length", [1, 13, 300])
def test_softmax_features(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (ours, theirs), inputs = both("exp"), qkv(length)
    mixed = ours(*inputs, mask=self_mask(length, False))
    off_by_eps = (mixed - theirs(*inputs)).abs().max()
    without_eps(monkeypatch)
    same(mixed, theirs(*inputs))
    assert off_by_eps > 1e-5 or length == 1


@pytest.mark.parametrize("length", [1, 13, 300])
def test_relu_features(length: int) -> None:
    (ours, theirs), inputs = both("relu"), qkv(length)
    same(ours(*inputs, mask=self_mask(length, False)), theirs(*inputs))


@pytest.mark.parametrize("length", [1, 13, 129])
def test_causal(length: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Their plain PyTorch form, which is what runs without their CUDA extension."""
    ours, theirs = both("exp", causal=True)
    assert "non-cuda version" in capsys.readouterr().out
    without_eps(monkeypatch)
    theirs.causal_linear_fn = partial(theirs.causal_linear_fn, eps=0.0)
    query, key, value = (x / math.sqrt(DIM) for x in qkv(length))
    same(ours(query, key, value, mask=self_mask(length, True)), theirs(query, key, value))


def test_causal_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = both("exp", causal=True)
    without_eps(monkeypatch)
    theirs.causal_linear_fn = partial(theirs.causal_linear_fn, eps=0.0)
    query, key, value = (x.float() for x in qkv(129))
    mixed = ours.float()(query, key, value, mask=self_mask(129, True))
    assert_close(mixed, theirs.float()(query, key, value), atol=1e-4, rtol=1e-4)
