"""Pooling: from hidden states to one vector per sequence."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

PoolingName = Literal["mean", "class"]


class MeanPooling:
    """The mean over the tokens without padding."""

    extra_tokens = 0

    def prepare(
        self, tokens: Int[Tensor, "batch length"], padding_mask: Bool[Tensor, "batch length"] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the sequence unchanged."""
        return tokens, padding_mask

    def pool(
        self, hidden: Float[Tensor, "batch length d_model"], padding_mask: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch d_model"]:
        """The mean over the tokens without padding."""
        if padding_mask is None:
            return hidden.mean(dim=1)
        weights = padding_mask.to(hidden.dtype)
        return torch.einsum("bnd,bn->bd", hidden, weights / weights.sum(dim=1, keepdim=True))


class ClassTokenPooling:
    """The hidden state of a class token in front (BERT's [CLS]), whose id is the last one of the vocabulary."""

    extra_tokens = 1

    def __init__(self, token: int) -> None:
        self.token = token

    def prepare(
        self, tokens: Int[Tensor, "batch length"], padding_mask: Bool[Tensor, "batch length"] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Put the class token in front."""
        mask = None if padding_mask is None else pad(padding_mask, (1, 0), value=True)
        return pad(tokens, (1, 0), value=self.token), mask

    def pool(
        self, hidden: Float[Tensor, "batch length d_model"], padding_mask: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch d_model"]:
        """The first hidden state."""
        return hidden[:, 0]
