r"""Attention maps: per layer and head, what every query takes from every key.

A variant that mixes values linearly gives out = W(query, key) V + c(query, key), with W a matrix of queries x keys that
most variants never write out, and c a term that some position schemes add (Shaw et al. 2018, equation 3: sum_j w_ij
aV_ij). So W is what a variant does to the columns of the identity,

    W e_j = mix(query, key, e_j) - mix(query, key, 0)

as many columns at a time as a head has features. No variant has to know of it. Whether it is linear is not believed but
measured, on the values of the pass at hand, by |W V + c - out| / |out| and |c| / |out|: `Linearity` is what was found,
and `tests/contracts/test_linearity.py` decides it for every variant, a plugin's too. What is not linear has no map of
weights; nor has a token mixer that owns its projections. Both have one of influence (`influence_maps.py`).

A row is zero where a query has nothing to read. Time is k / d + 3 passes through the variant; memory O(q k), the map's.
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
"""How far from 1 the sum of a distribution's weights may be."""
EXACT = 1e-3
"""How far from the output, as a share of it, a map's weights times the values may be."""


class Linearity(StrEnum):
    """What a variant's output is of its values, as it was measured."""

    WEIGHTS = "weights times values are the output"
    CONSTANT = "weights times values and a constant are the output"
    NONE = "not linear in the values"


@dataclass(frozen=True)
class AttentionMap:
    """What one layer's heads read.

    Attributes:
        slot: the place of the attention, by the configuration's key.
        layer: of its stack, from 0.
        variant: the class that mixed.
        weights: W, for each sequence and head.
        error: |W V + c - out| / |out| of this pass; infinite where there is no number.
        constant: |c| / |out| of it.
    """

    slot: str
    layer: int
    variant: str
    weights: Float[Tensor, "batch heads query key"]
    error: float = 0.0
    constant: float = 0.0

    @property
    def values(self) -> Float[Tensor, "batch heads query key"]:
        """What is drawn."""
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
        """Of the weights in nats, the mean over queries that read something; None where they are no distributions.

        Nor has a map an entropy whose weights are not what the layer does.
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
    """The W that a variant multiplies values with, whether or not it ever writes it out.

    Args:
        mix: the variant.
        query: as the variant gets it: rotated, and shifted by the bias.
        key: likewise.
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
"""What is drawn of a layer: the weights where it has some, else the influence."""


def attention_maps(model: Architecture, forward: Callable[[], object]) -> list[LayerMap]:
    """The maps of all layers, slot by slot, in evaluation mode.

    Layers that share their parameters have a map each.

    Args:
        model: whose token mixers are watched.
        forward: runs the model once, on sequences and not from a decoding state.
    """
    training = model.training
    try:
        calls = layer_calls(model, forward)
        model.eval()
        return [layer_map(call) for call in calls]
    finally:
        model.train(training)


def layer_map(call: LayerCall) -> LayerMap:
    """The map of one layer: of weights, where weights times values are what it does, else of influence."""
    if call.attention is None:
        return influence_map(call)
    found = map_of(call.attention)
    return found if found.exact else replace(influence_map(call), weights_error=found.error)


@torch.no_grad()
def map_of(call: AttentionCall) -> AttentionMap:
    """The weights of one layer, and how far weights times values are from what the layer gave."""
    weights = implied_matrix(call.mix, call.query, call.key, mask=call.mask, bias=call.bias)
    output = call.mixed(call.mix)
    constant = replace(call, value=torch.zeros_like(call.value)).mixed(call.mix)
    size = output.norm().clamp(min=torch.finfo(output.dtype).tiny)
    error, share = (float(part.norm() / size) for part in (weights @ call.value + constant - output, constant))
    error = error if math.isfinite(error) else math.inf
    return AttentionMap(call.slot, call.layer, type(call.mix).__name__, weights.nan_to_num(), error, share)
