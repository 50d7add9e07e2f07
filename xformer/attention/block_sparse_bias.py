"""A relative bias where heads differ in what they read, which the bias itself knows nothing of."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xformer.core.bias import RelativeBias, TableBias


def bias_scores(
    bias: RelativeBias, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b #h *block q k"]
) -> Float[Tensor, "#b h *block q k"]:
    """What the bias adds to the scores; where each head has distances of its own, it is asked once per head."""
    if distances.shape[1] == 1:
        return bias.scores(query, distances[:, 0])
    heads = range(query.shape[1])
    return torch.cat([bias.scores(query, distances[:, head])[:, head : head + 1] for head in heads], dim=1)


def bias_values(
    bias: RelativeBias, weights: Float[Tensor, "b h *block q k"], distances: Int[Tensor, "#b #h *block q k"]
) -> Float[Tensor, "b h *block q d"] | None:
    """What the bias adds to the values, likewise."""
    if not bias.adds_values:
        return None
    if distances.shape[1] == 1:
        return bias.values(weights, distances[:, 0])
    terms = [bias.values(weights, distances[:, head]) for head in range(weights.shape[1])]
    kept = [term[:, head : head + 1] for head, term in enumerate(terms) if term is not None]
    return torch.cat(kept, dim=1) if kept else None


def on_heads(bias: RelativeBias, heads: slice, total: int) -> RelativeBias:
    """The bias of some of the heads, for an attention over those alone."""
    return _TableOnHeads(bias, heads) if isinstance(bias, TableBias) else _OnHeads(bias, heads, total)


class _TableOnHeads(TableBias):
    def __init__(self, bias: TableBias, heads: slice) -> None:
        self.bias, self.heads = bias, heads

    def table(self, distances: Int[Tensor, "*shape"]) -> Float[Tensor, "h *shape"]:
        return self.bias.table(distances)[self.heads]


class _OnHeads(RelativeBias):
    """A bias may have parameters per head, so that it has to see all heads; those left out are zeros."""

    def __init__(self, bias: RelativeBias, heads: slice, total: int) -> None:
        self.bias, self.heads, self.total = bias, heads, total

    @property
    def adds_values(self) -> bool:
        return self.bias.adds_values

    def scores(
        self, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "#b h *block q k"]:
        return self.bias.scores(self._among_all(query), distances)[:, self.heads]

    def values(
        self, weights: Float[Tensor, "b h *block q k"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "b h *block q d"] | None:
        term = self.bias.values(self._among_all(weights), distances)
        return None if term is None else term[:, self.heads]

    def _among_all(self, x: Tensor) -> Tensor:
        everyone = x.new_zeros(len(x), self.total, *x.shape[2:])
        everyone[:, self.heads] = x
        return everyone
