"""Attention masks as structure; nothing quadratic is allocated until `dense` is called."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """An attention mask: positions of queries and keys, causality, and padding.

    Positions are explicit because shapes do not determine them: with a cache, one query at position 9 reads ten keys.
    They increase along the sequence, except at padding.
    """

    query_positions: Int[Tensor, "#batch query"]
    key_positions: Int[Tensor, "#batch key"]
    causal: bool = False
    key_padding: Bool[Tensor, "batch key"] | None = None
    """False at padding."""
    offsets: tuple[int, int] | None = None
    """The value of `starts`, if known when the positions were made."""

    @classmethod
    def consecutive(
        cls,
        start: int,
        length: int,
        *,
        causal: bool,
        key_padding: Bool[Tensor, "batch length"] | None = None,
        device: torch.device | None = None,
    ) -> "Mask":
        """A mask for queries and keys that are the same tokens, at positions start, start + 1, ... in all rows."""
        positions = torch.arange(start, start + length, device=device)[None]
        return cls(positions, positions, causal, key_padding, (start, start))

    @property
    def aligned(self) -> bool:
        """Whether queries and keys are the same tokens, so that the causal mask is the lower triangle."""
        return self.query_positions is self.key_positions

    @property
    def starts(self) -> tuple[int, int] | None:
        """The positions of the first query and the first key, if both are consecutive and equal in all rows.

        None if they are not, or if it is unknown, because reading positions from a device would synchronise with it.
        """
        if self.offsets is not None:
            return self.offsets
        positions = self.query_positions, self.key_positions
        if all(len(each) == 1 and each.is_cpu and bool((each.diff() == 1).all()) for each in positions):
            return int(positions[0][0, 0]), int(positions[1][0, 0])
        return None

    def dense(self) -> Bool[Tensor, "#batch 1 #query key"] | None:
        """True where a query may attend to a key; None if nothing is masked."""
        valid = None if self.key_padding is None else self.key_padding[:, None, None, :]
        if not self.causal:
            return valid
        not_after = (self.key_positions[:, None, :] <= self.query_positions[:, :, None]).unsqueeze(1)
        return not_after if valid is None else not_after & valid

    def blank(
        self, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d"], value: Float[Tensor, "b h k d"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Replace padding by zeros, so that its content, even NaN, does not reach a sum or a gradient.

        A weight of zero is not enough, because zero times NaN is NaN. In padded queries only non-finite entries become
        zero, because their outputs do not affect other tokens.
        """
        if self.key_padding is None:
            return query, key, value
        padding = ~self.key_padding[:, None, :, None]
        if self.aligned:
            query = finite(query, padding)
        return query, key.masked_fill(padding, 0.0), value.masked_fill(padding, 0.0)

    def distances(self) -> Int[Tensor, "#batch query key"]:
        """Key position - query position, for all pairs."""
        return self.key_positions[:, None, :] - self.query_positions[:, :, None]


def finite(x: Float[Tensor, "*shape d"], padding: Bool[Tensor, "*#shape 1"]) -> Float[Tensor, "*shape d"]:
    """Replace non-finite entries of padding by zeros, because they would make gradients non-finite even if unused."""
    return x.masked_fill(padding & ~x.isfinite(), 0.0)
