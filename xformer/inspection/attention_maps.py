r"""Attention maps: per layer and head, what every query takes from every key.

A variant that mixes values linearly gives out = W(query, key) V + c(query, key), with W a matrix of queries x keys that
most variants never write out, and c a term that some position schemes add (Shaw et al. 2018, equation 3: sum_j w_ij
aV_ij). So W is what a variant does to the columns of the identity,

    W e_j = mix(query, key, e_j) - mix(query, key, 0)

as many columns at a time as a head has features. No variant has to know of it. Whether it is linear is not believed but
measured, on the values of the pass at hand: |W V + c - out| / |out|. That is rounding for each of these:

    full, additive, multiplicative, local, sparse, bigbird      the softmax; rows sum to 1
    performer          phi(Q) phi(K)^T, normalised; rows sum to 1
    linformer          softmax(Q (E K)^T / sqrt(d)) F: F is learned, so entries may be negative and rows sum to anything

A row is zero where a query has nothing to read. Time is k / d + 3 passes through the variant; memory O(q k), the map's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from xformer.architecture.base import Architecture
from xformer.attention.base import Attention
from xformer.core.bias import RelativeBias
from xformer.core.mask import Mask
from xformer.inspection.attention_calls import AttentionCall, attention_calls

EVEN = 1e-3
"""How far from 1 the sum of a distribution's weights may be."""
EXACT = 1e-3
"""How far from the output, as a share of it, a map's weights times the values may be."""


@dataclass(frozen=True)
class AttentionMap:
    """What one layer's heads read.

    Attributes:
        slot: the place of the attention, by the configuration's key.
        layer: of its stack, from 0.
        variant: the class that mixed.
        weights: W, for each sequence and head.
        error: |W V + c - out| / |out| of this pass; infinite where there is no number.
    """

    slot: str
    layer: int
    variant: str
    weights: Float[Tensor, "batch heads query key"]
    error: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether the weights times the values are the layer's output; else the variant is not linear in its values."""
        return self.error <= EXACT

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


@torch.no_grad()
def attention_maps(model: Architecture, forward: Callable[[], object]) -> list[AttentionMap]:
    """The maps of all layers, slot by slot, in evaluation mode.

    Layers that share their parameters have a map each.

    Args:
        model: whose attentions are watched.
        forward: runs the model once, on sequences and not from a decoding state.
    """
    return [map_of(call) for call in attention_calls(model, forward)]


@torch.no_grad()
def map_of(call: AttentionCall) -> AttentionMap:
    """The map of one layer, and how far it is from what the layer gave."""
    weights = implied_matrix(call.mix, call.query, call.key, mask=call.mask, bias=call.bias)
    output = call.mixed(call.mix)
    constant = replace(call, value=torch.zeros_like(call.value)).mixed(call.mix)
    error = float(
        (weights @ call.value + constant - output).norm() / output.norm().clamp(min=torch.finfo(output.dtype).tiny)
    )
    error = error if math.isfinite(error) else math.inf
    return AttentionMap(call.slot, call.layer, type(call.mix).__name__, weights.nan_to_num(), error)
