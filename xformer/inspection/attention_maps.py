r"""Attention maps: the weight of every key for every query, per layer and head.

A variant that is linear in the values computes out = W(query, key) V + c(query, key), with W a queries x keys matrix
that most variants never materialise, and c a term that some position schemes add (Shaw et al. 2018, equation 3:
sum_j w_ij aV_ij). W is obtained from the columns of the identity,

    W e_j = mix(query, key, e_j) - mix(query, key, 0)

as many columns at a time as a head has features, without any code in the variant. Linearity is measured on the values
of the pass, by |W V + c - out| / |out| and |c| / |out|; `Linearity` is the result, and
`tests/contracts/test_linearity.py` checks it for every variant, including those of plugins. A variant that is not
linear has no map of weights, nor has a token mixer that owns its projections; both have one of influence
(`influence_maps.py`).

A row is zero if a query has no key to attend to. Time is k / d + 3 passes through the variant; memory O(q k).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor

from xformer.architecture.base import Architecture
from xformer.attention.base import Attention
from xformer.core.bias import RelativeBias
from xformer.core.mask import Mask
from xformer.inspection.attention_calls import AttentionCall, LayerCall, layer_calls
from xformer.inspection.influence_maps import InfluenceMap, influence_map

EVEN = 1e-3
"""The tolerance for the sum of a distribution's weights."""
EXACT = 1e-3
"""The tolerance for the relative error of weights times values against the output."""


class Linearity(StrEnum):
    """How a variant's output depends on its values, as measured."""

    WEIGHTS = "weights times values are the output"
    CONSTANT = "weights times values and a constant are the output"
    NONE = "not linear in the values"


@dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one layer.

    Attributes:
        slot: the slot of the attention, by its configuration key.
        layer: the index of the layer in its stack.
        variant: the class of the variant.
        weights: W, for each sequence and head.
        error: |W V + c - out| / |out| of this pass; infinite if it is not a number.
        constant: |c| / |out| of this pass.
    """

    slot: str
    layer: int
    variant: str
    weights: Float[Tensor, "batch heads query key"]
    error: float = 0.0
    constant: float = 0.0

    @property
    def values(self) -> Float[Tensor, "batch heads query key"]:
        """The values to draw."""
        return self.weights

    @property
    def linearity(self) -> Linearity:
        """Whether weights times values are the layer's output, alone or with a constant."""
        if self.error > EXACT:
            return Linearity.NONE
        return Linearity.CONSTANT if self.constant > EXACT else Linearity.WEIGHTS

    @property
    def exact(self) -> bool:
        """Whether the variant is linear in its values."""
        return self.linearity != Linearity.NONE

    @property
    def entropy(self) -> Float[Tensor, " heads"] | None:
        """The entropy of the weights in nats, averaged over queries that attend to a key.

        None if the weights are not distributions, or if weights times values are not the layer's output.
        """
        if not self.exact:
            return None
        total = self.weights.sum(-1)
        reads = total > EVEN
        if self.weights.min() < -EVEN or ((total - 1).abs() > EVEN)[reads].any():
            return None
        rows = torch.special.entr(self.weights.clamp(min=0)).sum(-1) * reads
        mean: Tensor = rows.sum(dim=(0, 2)) / reads.sum(dim=(0, 2)).clamp(min=1)
        return mean


@torch.no_grad()
def implied_matrix(
    mix: Attention,
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    *,
    mask: Mask,
    bias: RelativeBias | None = None,
) -> Float[Tensor, "b h q k"]:
    """The matrix W by which a variant multiplies the values, even if it never materialises it.

    Args:
        mix: the variant.
        query: the variant's input, rotated and shifted by the bias.
        key: the variant's input, rotated.
        mask: positions, causality and padding.
        bias: the relative bias.
    """
    keys, features = key.shape[2:]
    constant = mix(query, key, torch.zeros_like(key), mask=mask, bias=bias)
    columns = []
    for first in range(0, keys, features):
        some = torch.eye(keys, features, dtype=key.dtype, device=key.device).roll(first, dims=0)
        mixed = mix(query, key, some.expand_as(key).contiguous(), mask=mask, bias=bias)
        columns.append((mixed - constant)[..., : keys - first])
    return torch.cat(columns, dim=-1)


LayerMap = AttentionMap | InfluenceMap
"""The map of a layer: weights if it has them, else influence."""


def attention_maps(model: Architecture, forward: Callable[[], object]) -> list[LayerMap]:
    """The maps of all layers, slot by slot, in evaluation mode; layers that share parameters have a map each.

    Args:
        model: the model to record.
        forward: runs the model once on whole sequences, without a decoding state.
    """
    training = model.training
    try:
        calls = layer_calls(model, forward)
        model.eval()
        return [layer_map(call) for call in calls]
    finally:
        model.train(training)


def layer_map(call: LayerCall) -> LayerMap:
    """The map of one layer: weights if weights times values are its output, else influence."""
    if call.attention is None:
        return influence_map(call)
    found = map_of(call.attention)
    return found if found.exact else replace(influence_map(call), weights_error=found.error)


@torch.no_grad()
def map_of(call: AttentionCall) -> AttentionMap:
    """The weights of one layer, with the error of weights times values against its output."""
    weights = implied_matrix(call.mix, call.query, call.key, mask=call.mask, bias=call.bias)
    output = call.mixed(call.mix)
    constant = replace(call, value=torch.zeros_like(call.value)).mixed(call.mix)
    size = output.norm().clamp(min=torch.finfo(output.dtype).tiny)
    error, share = (float(part.norm() / size) for part in (weights @ call.value + constant - output, constant))
    error = error if math.isfinite(error) else math.inf
    return AttentionMap(call.slot, call.layer, type(call.mix).__name__, weights.nan_to_num(), error, share)
