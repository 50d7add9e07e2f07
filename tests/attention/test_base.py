"""The seam, by toy variants that declare this and that: what it refuses, and how a cache decodes."""

import itertools
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from xformer.attention.base import Attention, AttentionContext, CachedAttention
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.errors import IncompatibleError

HEADS, HEAD_DIM, LENGTH = 2, 3, 7


class Scores(RelativeBias):
    """Adds nothing, by a rule that may look at the query."""

    def scores(self, query: Tensor, distances: Tensor) -> Tensor:
        return query.new_zeros(*query.shape[:-1], distances.shape[-1])


class Slope(TableBias):
    """Takes a tenth of the distance away."""

    def table(self, distances: Tensor) -> Tensor:
        return -0.1 * distances.abs().expand(HEADS, *distances.shape)


class Mean(CachedAttention):
    """A mean of the values that may be read, weighed by exp(bias); `read` counts how often it mixes."""

    provides: ClassVar[Capability] = Capability.CAUSAL | Capability.PADDING | Capability.BIAS | Capability.INCREMENTAL
    read = 0

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, mask: Mask, bias: RelativeBias | None = None
    ) -> Tensor:
        self.read += 1
        allowed = mask.dense()
        weights = torch.ones(len(query), HEADS, query.shape[2], key.shape[2])
        if bias is not None:
            weights = weights * bias.scores(query, mask.distances()).exp()
        weights = weights if allowed is None else weights * allowed
        return weights @ value / weights.sum(-1, keepdim=True).clamp(min=1e-9)


class Plain(Mean):
    """Declares nothing, and says why of one thing."""

    provides: ClassVar[Capability] = Capability.NONE
    reasons: ClassVar[dict[Capability, str]] = {Capability.PADDING: "it was not told which tokens are real."}


class Forgetful(Attention):
    """Keeps no state."""

    forward = Mean.forward
    read = 0


def context(*, causal: bool = False, cross: bool = False) -> AttentionContext:
    return AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, causal, cross)


def inputs(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, HEADS, LENGTH, HEAD_DIM, generator=generator) for _ in range(3)]


def consecutive(causal: bool = False, valid: Tensor | None = None) -> Mask:
    return Mask.consecutive(0, LENGTH, causal=causal, key_padding=valid)


@pytest.mark.parametrize(
    ("role", "missing"), [({"causal": True}, "CAUSAL"), ({"cross": True}, "CROSS")], ids=["causal", "cross"]
)
def test_a_layers_role_is_refused_when_it_is_built(role: dict[str, bool], missing: str) -> None:
    Plain(context())
    with pytest.raises(IncompatibleError, match=f"^Plain cannot do {missing}: it does not declare this capability"):
        Plain(context(**role))


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ({"mask": consecutive(causal=True)}, "CAUSAL: it does not declare"),
        ({"mask": consecutive(valid=torch.ones(2, LENGTH) > 0)}, r"PADDING: it was not told which tokens are real\.$"),
        ({"mask": consecutive(), "bias": Slope()}, "BIAS: it does not declare"),
        ({"mask": consecutive(), "bias": Scores()}, "CONTENT_BIAS: it does not declare"),
    ],
    ids=["causal", "padding", "bias", "content bias"],
)
def test_what_is_not_declared_is_refused_before_anything_is_mixed(asked: dict[str, Any], missing: str) -> None:
    attention = Plain(context())
    attention(*inputs(), mask=consecutive())
    state = attention.init_state(LENGTH)
    for call in (attention, lambda *qkv, **others: attention.step(*qkv, state, **others)):
        with pytest.raises(IncompatibleError, match=f"^Plain cannot do {missing}"):
            call(*inputs(), **asked)
    assert attention.read == 1
    assert state.length == 0


def test_a_table_does_not_stand_for_a_bias_of_the_content() -> None:
    attention = Mean(context())
    attention(*inputs(), mask=consecutive(), bias=Slope())
    with pytest.raises(IncompatibleError, match="Mean cannot do CONTENT_BIAS"):
        attention(*inputs(), mask=consecutive(), bias=Scores())


def test_of_several_things_the_first_that_is_missing_is_named() -> None:
    attention = Mean(context())
    attention.require(Capability.NONE)
    attention.require(Capability.CAUSAL | Capability.PADDING)
    with pytest.raises(IncompatibleError, match="Mean cannot do CROSS"):
        attention.require(Capability.CAUSAL | Capability.ROTARY | Capability.CROSS)


def test_one_that_keeps_no_state_cannot_decode() -> None:
    attention, state = Forgetful(context()), Mean(context()).init_state(LENGTH)
    with pytest.raises(IncompatibleError, match="Forgetful cannot do INCREMENTAL"):
        attention.init_state(LENGTH)
    with pytest.raises(IncompatibleError, match="Forgetful cannot do INCREMENTAL"):
        attention.step(*inputs(), state, mask=consecutive())


def test_what_padding_holds_reaches_no_cached_attention() -> None:
    valid = torch.arange(LENGTH) < torch.tensor([[LENGTH], [3]])
    hidden = ~valid[:, None, :, None]
    attention, tokens = Mean(context()), inputs()
    mixed = attention(*(x.masked_fill(hidden, torch.nan) for x in tokens), mask=consecutive(valid=valid))
    assert_close(mixed[0], tokens[2][0].mean(1, keepdim=True).expand_as(mixed[0]))
    assert_close(mixed[1], tokens[2][1, :, :3].mean(1, keepdim=True).expand_as(mixed[1]))


@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("bias", [None, Slope()], ids=["no bias", "bias"])
@pytest.mark.parametrize("sizes", [[1] * LENGTH, [3, 1, 2, 1], [LENGTH]], ids=str)
def test_steps_with_a_cache_equal_forward(sizes: list[int], bias: RelativeBias | None, side: str | None) -> None:
    attention, tokens = Mean(context(causal=True)), inputs()
    valid = None if side is None else torch.arange(LENGTH) < torch.tensor([[LENGTH], [4]])
    if valid is not None and side == "left":
        valid = valid.flip(-1)
        tokens = [x.masked_fill(~valid[:, None, :, None], torch.nan) for x in tokens]
    mask = consecutive(causal=True, valid=valid)
    expected = attention(*tokens, mask=mask, bias=bias)
    assert expected.isfinite().all()
    state, steps = attention.init_state(LENGTH), []
    for start, end in itertools.pairwise(itertools.accumulate(sizes, initial=0)):
        own = None if valid is None else valid[:, start:end]
        new = Mask.consecutive(start, end - start, causal=True, key_padding=own)
        steps.append(attention.step(*(x[:, :, start:end] for x in tokens), state, mask=new, bias=bias))
        assert state.length == end
    assert_close(torch.cat(steps, dim=2), expected)
