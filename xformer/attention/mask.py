"""Which query may read which key, as structure; nothing quadratic exists until `dense` is called."""

from dataclasses import dataclass

from jaxtyping import Bool, Int
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

    @property
    def aligned(self) -> bool:
        """Whether queries and keys are the same tokens, so that 'not after me' is the lower triangle."""
        return self.query_positions is self.key_positions

    def dense(self) -> Bool[Tensor, "#batch 1 #query key"] | None:
        """True where a query may attend to a key; None where nothing is forbidden."""
        real = None if self.key_padding is None else self.key_padding[:, None, None, :]
        if not self.causal:
            return real
        not_after = (self.key_positions[:, None, :] <= self.query_positions[:, :, None]).unsqueeze(1)
        return not_after if real is None else not_after & real

    def distances(self) -> Int[Tensor, "#batch query key"]:
        """Key position - query position, for all pairs."""
        return self.key_positions[:, None, :] - self.query_positions[:, :, None]
