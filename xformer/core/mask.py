"""Which query may read which key, as structure; nothing quadratic exists until `dense` is called."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """The positions of queries and keys, causality, and which keys are real.

    Positions are explicit because shapes cannot tell them: with a cache, one query at position 9 reads ten keys.
    They increase along the sequence wherever the tokens are real.
    """

    query_positions: Int[Tensor, "#batch query"]
    key_positions: Int[Tensor, "#batch key"]
    causal: bool = False
    key_padding: Bool[Tensor, "batch key"] | None = None
    """True = a real token."""
    offsets: tuple[int, int] | None = None
    """What `starts` is, where whoever made the positions knows."""

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
        """Of queries and keys that are the same tokens, at positions start, start + 1, ... in all rows."""
        positions = torch.arange(start, start + length, device=device)[None]
        return cls(positions, positions, causal, key_padding, (start, start))

    @property
    def aligned(self) -> bool:
        """Whether queries and keys are the same tokens, so that 'not after me' is the lower triangle."""
        return self.query_positions is self.key_positions

    @property
    def starts(self) -> tuple[int, int] | None:
        """The first query's and the first key's position, if from there both count up by one, in all rows alike.

        None where they do not, or where nobody knows: to read positions on another device is to wait for it.
        """
        if self.offsets is not None:
            return self.offsets
        positions = self.query_positions, self.key_positions
        if all(len(each) == 1 and each.is_cpu and bool((each.diff() == 1).all()) for each in positions):
            return int(positions[0][0, 0]), int(positions[1][0, 0])
        return None

    def dense(self) -> Bool[Tensor, "#batch 1 #query key"] | None:
        """True where a query may attend to a key; None where nothing is forbidden."""
        valid = None if self.key_padding is None else self.key_padding[:, None, None, :]
        if not self.causal:
            return valid
        not_after = (self.key_positions[:, None, :] <= self.query_positions[:, :, None]).unsqueeze(1)
        return not_after if valid is None else not_after & valid

    def blank(
        self, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d"], value: Float[Tensor, "b h k d"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same with zeros at padding, so that nothing that it holds, not even NaN, reaches a sum or a gradient.

        A weight of zero is not enough: zero times NaN is NaN. Of queries only what is not finite becomes zero, as what
        a padded query mixes is its own.
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
    """The same with zeros where padding is NaN or infinite: its gradient would be, even if nothing is made of it."""
    return x.masked_fill(padding & ~x.isfinite(), 0.0)
