r"""Transformer-XL's relative positions.

Dai et al. 2019, "Transformer-XL: Attentive Language Models beyond a Fixed-Length Context", section 3.3. The score of
query i and key j has four terms, all divided by sqrt(d):

    q_i . k_j  +  q_i . W_R R_{i-j}  +  u . k_j  +  v . W_R R_{i-j}        (a) + (b) + (c) + (d)

with R the sinusoid of a distance (all sines, then all cosines), W_R one matrix per layer and u, v one vector per head,
shared by the layers, as in the paper. (a) + (c) is content attention with the query q + u, which is what `shift` makes
of it; (b) + (d) is (q + v) . W_R R, the scores.

Here R is a function of the distance, so bidirectional stacks, gathered keys and padding work alike; the sign tells
before from after. Any length is defined. Where positions count up by one, as in a batch without padding on the left,
all distances are evaluated and shifted into place, as in the paper, but in both directions: memory O(q h (q + k)).

Cost: where few distances are distinct (at most two per key of a query: dense attention, decoding, a sliding window),
W_R R is evaluated once for each and multiplies the queries; then a gather. Elsewhere a sine of a sum is split into
sines of the query's and of the key's offset,

    w . R_{a+b} = (w_sin cos a - w_cos sin a) . sin b + (w_sin sin a + w_cos cos a) . cos b,     w = W_R^T (q + v)

so that memory is O(q h d_model + k d_model + q k) for q queries and k keys, and time O(q k h d_model).

Not supported: attention whose scores are not a dot product of query and key; the paper's recurrence over segments,
which belongs to the architecture.
"""

import math
from typing import Annotated, ClassVar, cast

import torch
from annotated_types import Gt
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from xformer.core.bias import RelativeBias
from xformer.core.capability import Capability
from xformer.core.linear import Linear
from xformer.core.precision import at_least_float32
from xformer.position.base import Position, PositionContext
from xformer.position.waves import angles


class WaveBias(RelativeBias):
    """The bias of one layer: terms (b), (c) and (d) of the paper.

    Args:
        weight: W_R, its rows split into heads.
        u: the vector added to the query for content scores.
        v: the vector added to the query for position scores.
        base: of the sinusoid.
    """

    def __init__(
        self, weight: Float[Tensor, "h d d_model"], u: Float[Tensor, "h d"], v: Float[Tensor, "h d"], base: float
    ) -> None:
        self.weight, self.u, self.v, self.base = weight, u, v, base

    def shift(self, query: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q d"]:
        """Compute q + u, in float32 at least."""
        return at_least_float32(query) + at_least_float32(self.u)[:, None]

    def scores(
        self, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "#b h *block q k"]:
        """(q + v) . W_R R_{-distance} / sqrt(d), given q + u."""
        query = self._for_positions(query)
        # How the distances of a row differ from the first row's, which is the same for all keys: -(q_i - q_0).
        offsets = distances[..., :1] - distances[..., :1, :1]
        first = distances[..., :1, :]
        low, high = (int(end) for end in distances.aminmax())
        if high - low < 2 * distances.shape[-1] or not torch.equal(first + offsets, distances):
            logits = self._by_distance(query, torch.arange(low, high + 1, device=query.device))
            return logits.gather(-1, (distances - low).unsqueeze(1).expand(*logits.shape[:-1], -1))
        return self._by_position(query, -offsets.squeeze(-1), -first.squeeze(-2))

    def windows(
        self, query: Float[Tensor, "b h q d"], distances: Int[Tensor, " distances"], keys: int
    ) -> Float[Tensor, "b h q k"]:
        """The scores for consecutive positions, by the relative shift of the paper's appendix B; a view."""
        queries, columns = query.shape[2], len(distances) + 1  # the last one is read by none
        logits = self._by_distance(self._for_positions(query), pad(distances, (0, 1)))
        # One number less in a row moves every row one place further than the row before it.
        shifted = logits.flatten(-2)[..., queries - 1 : queries * columns - 1]
        return shifted.view(*shifted.shape[:-1], queries, columns - 1)[..., :keys]

    def _for_positions(self, query: Tensor) -> Tensor:
        """(q + v) / sqrt(d), given q + u."""
        heads, head_dim = self.u.shape
        difference = (self.v - self.u).view(heads, *[1] * (query.dim() - 3), head_dim)
        moved: Tensor = query + difference.to(query.dtype)
        return moved / math.sqrt(head_dim)

    def _by_distance(self, query: Tensor, distances: Tensor) -> Tensor:
        """Evaluate each distance once and share it between all queries."""
        weight = self.weight.to(query.dtype)
        keys = torch.einsum("hdw,cw->hcd", weight, torch.cat(self._waves(-distances, query.dtype), dim=-1))
        return torch.einsum("bh...d,hcd->bh...c", query, keys)

    def _by_position(self, query: Tensor, query_offsets: Tensor, key_offsets: Tensor) -> Tensor:
        """Evaluate the sinusoid of offsets that add up to i - j."""
        sines, cosines = torch.einsum("bh...d,hdw->bh...w", query, self.weight.to(query.dtype)).chunk(2, dim=-1)
        sin, cos = (wave.unsqueeze(1) for wave in self._waves(query_offsets, query.dtype))  # b 1 *block q w
        turned = (sines * cos - cosines * sin, sines * sin + cosines * cos)
        keys = torch.cat(self._waves(key_offsets, query.dtype), dim=-1)  # b *block k w
        return torch.einsum(
            "bh...qw,b...kw->bh...qk", torch.cat(turned, dim=-1), keys.expand(len(query), *keys.shape[1:])
        )

    def _waves(self, offsets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        turned = angles(offsets, self.weight.shape[-1], self.base, dtype)
        return turned.sin().to(dtype), turned.cos().to(dtype)


class TransformerXL(Position):
    """Transformer-XL's relative positions: projected sinusoids of the distance, and two learned query vectors u and v.

    Args:
        context: the stack's dimensions.
        base: of the sinusoid; 10000 in the paper.
    """

    needs: ClassVar[Capability] = Capability.CONTENT_BIAS
    vectors: ClassVar[tuple[str, ...]] = ("u", "v")

    def __init__(self, context: PositionContext, *, base: Annotated[float, Gt(1)]) -> None:
        super().__init__(context)
        self.base = base
        waves = context.d_model + context.d_model % 2  # as many sines as cosines
        inner = context.heads * context.head_dim
        self.projections = nn.ModuleList(Linear(waves, inner, bias=False) for _ in range(context.layers))
        self.u = nn.Parameter(torch.empty(context.heads, context.head_dim))
        self.v = nn.Parameter(torch.empty(context.heads, context.head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw u and v from N(0, 0.02^2), as the authors do."""
        nn.init.normal_(self.u, std=0.02)
        nn.init.normal_(self.v, std=0.02)

    def bias(self, layer: int) -> WaveBias:
        """The bias of a layer, with the layer's own W_R."""
        weight = cast(Linear, self.projections[layer]).weight
        weight = weight.view(self.context.heads, self.context.head_dim, -1)
        return WaveBias(weight, self.u, self.v, self.base)
