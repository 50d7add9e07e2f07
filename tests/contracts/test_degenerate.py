"""Settings with which a variant is full attention, under padding and bias and against `Full` itself.

Without padding, and over many more settings, each variant's own tests say the same: tests/attention/test_local.py,
test_sparse.py, test_bigbird.py and test_linformer.py. Performer is full attention in the limit of many features.
"""

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.contracts.variants import HEAD_DIM, HEADS, build_position, position_class, qkv, role
from xformer.attention.base import Attention, AttentionContext
from xformer.attention.bigbird import BigBird
from xformer.attention.full import Full
from xformer.attention.linformer import Linformer
from xformer.attention.local import Local
from xformer.attention.multiplicative import Multiplicative
from xformer.attention.performer import Performer
from xformer.attention.sparse import Sparse
from xformer.core.mask import Mask

LENGTH = 37
LENGTHS = [LENGTH, 20, 1]
DEGENERATE: dict[str, Any] = {
    "local, the window has everything": partial(Local, window=LENGTH - 1),
    "sparse, stride 1": partial(Sparse, pattern="strided", stride=1, summary=1, heads="merged"),
    "sparse, fixed, one block": partial(Sparse, pattern="fixed", stride=LENGTH, summary=1, heads="merged"),
    "sparse, fixed, every column": partial(Sparse, pattern="fixed", stride=5, summary=5, heads="merged"),
    "bigbird, all blocks in the window": partial(BigBird, block=4, global_blocks=0, window_blocks=21, random_blocks=0),
    "bigbird, all blocks drawn": partial(BigBird, block=4, global_blocks=1, window_blocks=1, random_blocks=8),
    "bigbird, all blocks global": partial(BigBird, block=4, global_blocks=10, window_blocks=1, random_blocks=0),
    "linformer, identity": partial(Linformer, rank=LENGTH, sharing="key_value", projection="learned"),
    "linformer, mean of each": partial(Linformer, rank=LENGTH, sharing="none", projection="mean"),
    "multiplicative, scaled": partial(Multiplicative, form="scaled"),
}


def build(name: str, causal: bool) -> Attention:
    attention: Attention = DEGENERATE[name](AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, causal))
    if isinstance(attention, Linformer) and attention.project_key is not None:
        attention.project_key.data.copy_(torch.eye(LENGTH))
    return attention


def mask(causal: bool, side: str) -> Mask:
    index, counts = torch.arange(LENGTH), torch.tensor(LENGTHS)[:, None]
    if side == "no":
        return Mask(index[None], index[None], causal)
    real = index < counts if side == "right" else index >= LENGTH - counts
    positions = index[None] if side == "right" else (real.long().cumsum(-1) - 1).clamp(min=0)
    return Mask(positions, positions, causal, real)


def gradients(attention: Attention, about: Mask, scheme: str) -> tuple[Tensor, ...]:
    """The mixed values of real tokens, and what flows back to queries, keys, values."""
    inputs = [x.requires_grad_() for x in qkv(len(LENGTHS), LENGTH)]
    mixed = attention(*inputs, mask=about, bias=build_position(scheme, causal=about.causal, max_length=LENGTH).bias(0))
    real = torch.ones(len(LENGTHS), LENGTH, dtype=torch.bool) if about.key_padding is None else about.key_padding
    kept = mixed.transpose(1, 2)[real]
    return kept, *torch.autograd.grad(kept.square().sum(), inputs)


def declared(name: str, causal: bool, side: str, scheme: str) -> bool:
    # A learned projection cannot leave padding out: its keys are zeros there, and have weight.
    expressible = name != "linformer, identity" or side == "no"
    needed = position_class(scheme).needs | role(causal)
    return expressible and needed in DEGENERATE[name].func.provides


CASES = itertools.product(DEGENERATE, [False, True], ["no", "right", "left"], ["none", "t5", "relative"])


@pytest.mark.parametrize(("name", "causal", "side", "scheme"), [case for case in CASES if declared(*case)])
def test_is_full_attention(name: str, causal: bool, side: str, scheme: str) -> None:
    about, full = mask(causal, side), Full(AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, causal))
    found, wanted = (gradients(attention, about, scheme) for attention in (build(name, causal), full))
    for ours, expected in zip(found, wanted, strict=True):
        assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_one_setting_less_is_not_full_attention(causal: bool) -> None:
    about, plain = mask(causal, "no"), Full(AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, causal))
    expected = plain(*qkv(1, LENGTH), mask=about)
    for less in (
        partial(Local, window=LENGTH - 2),
        partial(Sparse, pattern="strided", stride=2, summary=1, heads="merged"),
        partial(BigBird, block=4, global_blocks=1, window_blocks=1, random_blocks=7),
    ):
        attention = less(AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, causal))
        assert (attention(*qkv(1, LENGTH), mask=about) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_performer_approaches_softmax_with_the_root_of_the_features(seed: int, causal: bool) -> None:
    """Lemma 2 of the paper: the squared error of each weight falls as 1 / m."""
    query, key, value = (x * size for x, size in zip(qkv(1, 32, seed=seed), (0.25, 0.25, 1.0), strict=True))
    context = AttentionContext(HEADS, HEAD_DIM, 32, 32, causal)
    about = Mask(positions := torch.arange(32)[None], positions, causal)
    exact = Full(context)(query, key, value, mask=about)
    sizes, errors = [16, 64, 256, 1024], []
    for features in sizes:
        attention = Performer(context, features=features, kernel="exp", redraw_interval=None)
        mixed = []
        for draw in range(24):
            attention.log_features.draw(100 * seed + draw)
            mixed.append(attention(query, key, value, mask=about))
        errors.append((torch.stack(mixed) - exact).square().mean().sqrt())
    x, y = torch.tensor(sizes).log(), torch.stack(errors).log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert -0.7 < slope < -0.3
    assert errors[-1] < 0.005
