r"""Linformer: attention over a projection of the sequence's length.

Wang et al. 2020, "Linformer: Self-Attention with Linear Complexity", equation 7:

    head_i = softmax(Q_i (E_i K_i)^T / sqrt(d) + B E_i^T) (F_i V_i),     E_i, F_i in R^(rank x n)

Time and memory O(n rank) per head. Column j of E and F belongs to position j. Sharing (section 4): `none`, a pair for
each head and layer; `headwise`, one pair per layer; `key_value`, and E = F; `layerwise`, and one E for all layers.
Projections (section 4, "general projections"), with w = ceil(n / rank):

    learned        E a parameter, from N(0, 1 / rank) as in theorem 2
    convolution    E_rj = c_(j - r w) within window r of w positions, 0 elsewhere: kernel and stride n / rank
    mean           E_rj = 1 / w within window r: pooling, nothing to learn, nothing to share

B is a relative bias, B_ij = b(p_j - p_i), which the paper does not have. The score of a mixture of keys is the mixture
of their scores: (Q K^T / sqrt(d) + B) E^T. B E^T is computed as a Toeplitz product, in time O(n log n rank).

Padding has no part in the mixtures: its keys and values are zero, its columns of E too where B is projected, `mean`
divides by the tokens there are, and windows (`convolution`, `mean`) without any get no weight. A shorter sequence is
one padded to the length that the model was built for.

Deviations: B; the convolution's kernel is one for all features of a head, so that it is an E.

Not supported: causality, rotation, biases of the content, incremental decoding, longer sequences; `reasons` says why.
"""

import logging
from typing import Annotated, ClassVar, Literal, cast

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from xformer.attention.base import Attention, AttentionContext
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, without_autocast
from xformer.core.sdpa import fused_attention

logger = logging.getLogger(__name__)

Sharing = Literal["none", "headwise", "key_value", "layerwise"]
Projection = Literal["learned", "convolution", "mean"]


class Linformer(Attention):
    """Linformer: every query attends to `rank` learned mixtures of the keys.

    Args:
        context: the layer's dimensions and role.
        rank: the projected length, k in the paper; there may be fewer windows if the length is not a multiple.
        sharing: how heads and layers share projections.
        projection: the kind of projection.
    """

    provides: ClassVar[Capability] = Capability.BIDIRECTIONAL | Capability.CROSS | Capability.PADDING | Capability.BIAS
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.CAUSAL: (
            "its projection mixes all positions before the scores exist, so no mask can hide the future."
        ),
        Capability.CONTENT_BIAS: (
            "a bias of query and distance would have to be written out for every pair before it is projected, which is "
            "the quadratic cost it avoids."
        ),
        Capability.ROTARY: (
            "its keys are mixed after the rotation with weights that belong to absolute positions, so the scores do "
            "not depend on distance."
        ),
        Capability.INCREMENTAL: "every new token changes every projected key, and it cannot be causal.",
        Capability.VARIABLE_LENGTH: "its projection has one column per position.",
    }

    windows: Tensor

    def __init__(
        self, context: AttentionContext, *, rank: Annotated[int, Ge(1)], sharing: Sharing, projection: Projection
    ) -> None:
        super().__init__(context)
        self.sharing, self.projection = sharing, projection
        if rank > context.max_key and context.layer == context.first:
            logger.warning(
                "%s.rank=%d is more than the %d keys, so that nothing is compressed: full attention costs less.",
                context.path,
                rank,
                context.max_key,
            )
        window = -(-context.max_key // rank)
        window_of = torch.arange(context.max_key) // window
        windows = torch.arange(int(window_of[-1]) + 1)[:, None] == window_of  # rank x position
        self.register_buffer("windows", windows, persistent=False)
        shape = (rank, context.max_key) if projection == "learned" else (1, window)
        heads = context.heads if sharing == "none" else 1
        has_projection = projection != "mean" and not self._borrows
        self.project_key = nn.Parameter(torch.empty(heads, *shape)) if has_projection else None
        self.project_value = (
            nn.Parameter(torch.empty(heads, *shape)) if has_projection and sharing in _TWO else self.project_key
        )
        self.reset_parameters()

    @property
    def _borrows(self) -> bool:
        return self.sharing == "layerwise" and self.context.layer > self.context.first

    def share_with(self, first: Attention) -> None:
        """Share the first layer's projection, if `sharing` is layerwise."""
        if self._borrows:
            assert isinstance(first, Linformer)
            self.project_key = self.project_value = first.project_key

    def reset_parameters(self) -> None:
        """Draw E and F from N(0, 1 / rank), a convolution from N(0, 1 / w); what is borrowed is the first layer's."""
        if self._borrows:
            return
        for weight in dict.fromkeys((self.project_key, self.project_value)):
            if weight is not None:
                nn.init.normal_(weight, std=weight.shape[1 if self.projection == "learned" else 2] ** -0.5)

    def forward(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """softmax(Q (E K)^T / sqrt(d) + B E^T) (F V)."""
        query, key, value = mask.blank(query, key, value)
        with without_autocast(query.device):
            key, value = at_least_float32(key), at_least_float32(value)
            short_key = _project(self._matrix(self.project_key, key), mask.key_positions, key)
            short_value = _project(self._matrix(self.project_value, value), mask.key_positions, value)
            short_bias = None if bias is None else self._projected(cast(TableBias, bias), mask, key)
            if self.projection != "learned":
                short_key, short_value, short_bias = self._over_tokens(mask, short_key, short_value, short_bias)
            return fused_attention(query, short_key, short_value, short_bias)

    def _projected(self, bias: TableBias, mask: Mask, like: Tensor) -> Float[Tensor, "#b h q r"]:
        """B E^T, without the columns of padding."""
        matrix = self._matrix(self.project_key, like) * self._valid(mask)[:, None, None]
        return _projected_bias(bias, matrix, mask.query_positions, self.context.max_query)

    def _over_tokens(
        self, mask: Mask, key: Tensor, value: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """E K, F V and B E^T of windows: `mean` over the tokens there are, and no weight where there is none."""
        tokens = (self._valid(mask)[:, None] & self.windows).sum(-1)[:, None, :, None]  # b 1 r 1
        if self.projection == "mean":
            each = tokens.clamp(min=1)
            key, value = key / each, value / each
            bias = None if bias is None else bias / each.mT
        # A row without any token may attend to all windows: their values are zero.
        empty = ((tokens == 0) & (tokens > 0).any(dim=2, keepdim=True)).mT
        return key, value, (key.new_zeros(()) if bias is None else bias).masked_fill(empty, float("-inf"))

    def _valid(self, mask: Mask) -> Bool[Tensor, "#b max_key"]:
        """Whether each position has a token that is not padding."""
        columns = _columns(mask.key_positions, self.context.max_key)
        valid = torch.ones_like(columns) if mask.key_padding is None else mask.key_padding.long()
        columns = columns.expand(valid.shape)
        return valid.new_zeros(len(valid), self.context.max_key).scatter_add(1, columns, valid) > 0

    def _matrix(self, weight: nn.Parameter | None, x: Tensor) -> Float[Tensor, "1 #h r max_key"]:
        """E or F, with a column for every position; of `mean`, w E."""
        if self.projection == "mean":
            return self.windows.to(x.dtype)[None, None]
        if weight is None:
            raise RuntimeError("sharing=layerwise: the stack has to call share_with on every layer but the first")
        if self.projection == "learned":
            return weight.to(x.dtype).unsqueeze(0)
        within = torch.arange(self.context.max_key, device=weight.device) % weight.shape[-1]
        return (weight.to(x.dtype)[..., within] * self.windows).unsqueeze(0)


_TWO = ("none", "headwise")
"""Sharing with separate projections for keys and values."""


def _columns(positions: Int[Tensor, "#b k"], length: int) -> Int[Tensor, "#b k"]:
    return positions.clamp(0, length - 1)  # padding may be at any position


def _from_zero(columns: Int[Tensor, "#b k"]) -> bool:
    """Whether the keys have positions 0 to k - 1 in all rows; False if checking would wait for a device."""
    if len(columns) > 1 or columns.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return torch.equal(columns[0], torch.arange(columns.shape[1]))


def _project(
    matrix: Float[Tensor, "#b #h r length"], positions: Int[Tensor, "#b k"], x: Float[Tensor, "b h k d"]
) -> Float[Tensor, "b h r d"]:
    """E x: one product for all rows and heads that share the matrix."""
    columns = _columns(positions, matrix.shape[-1])
    if _from_zero(columns):
        matrix = matrix[..., : columns.shape[1]]
    elif len(columns) == 1:
        matrix = matrix[..., columns[0]]
    else:
        index = columns[:, None, None].expand(-1, *matrix.shape[1:3], -1)
        matrix = matrix.expand(len(columns), -1, -1, -1).gather(-1, index)
    axes = [axis for axis, size in zip("bh", matrix.shape, strict=False) if size > 1]  # that are not shared
    matrix = matrix[tuple(slice(None) if axis in axes else 0 for axis in "bh")]
    return torch.einsum(f"{''.join(axes)}rk,bhkd->bhrd", matrix, x)


def _projected_bias(
    bias: TableBias, matrix: Float[Tensor, "#b #h r length"], queries: Int[Tensor, "#b q"], max_query: int
) -> Float[Tensor, "#b h q r"]:
    """B E^T with B_ij = b(j - p_i), for keys at positions j = 0 ... length - 1.

    A Toeplitz product, by the Fourier transform: time O(n log n r) and memory O(n r) for each head. The rounding
    error is relative to the largest entry, as in any dense product of that many terms; in float64 it does not matter.

    Args:
        bias: the table b.
        matrix: E, with a column per position.
        queries: p, the queries' positions.
        max_query: a bound above all of them.
    """
    length = matrix.shape[-1]
    period = length + max_query - 1
    # The product at query position i is sum_j b(j - i) E_j: a convolution of E with b(-s) at s = i - j.
    shifts = torch.arange(period, device=matrix.device)
    shifts = torch.where(shifts < max_query, shifts, shifts - period)
    table = torch.fft.rfft(bias.table(-shifts).double())  # h f
    spectrum = torch.fft.rfft(matrix.double(), n=period)  # b h r f
    if spectrum.shape[1] == 1:
        spectrum = spectrum.expand(-1, len(table), -1, -1)
    positions = queries.clamp(0, max_query - 1)[:, None, :]

    def of_head(head: int) -> Tensor:
        convolved = torch.fft.irfft(table[head] * spectrum[:, head], n=period)  # b r position
        batch = max(len(convolved), len(positions))
        index = positions.expand(batch, convolved.shape[1], -1)
        of_queries: Tensor = convolved.expand(batch, -1, -1).gather(-1, index).mT.to(matrix.dtype)
        return of_queries

    return torch.stack([of_head(head) for head in range(len(table))], dim=1)
