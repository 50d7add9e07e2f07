"""Choosing the next token from logits: the most likely one, or a sample."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

ChooseToken = Callable[[Tensor], Tensor]
"""Logits (rows vocabulary) to tokens (rows)."""


def most_likely(logits: Float[Tensor, "rows vocabulary"]) -> Int[Tensor, " rows"]:
    """Greedy decoding."""
    return logits.argmax(-1)


class Sampling:
    """Samples from softmax(logits).

    Every row has its own random numbers, drawn on the CPU at the start, so its tokens depend only on its seed and its
    logits, not on the other rows or the device.

    Args:
        seeds: one per row.
        max_new: the maximum number of tokens.
        device: the device of the logits.
    """

    def __init__(self, seeds: Sequence[int], max_new: int, device: torch.device | str) -> None:
        numbers = [torch.rand(max_new, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._numbers = torch.stack(numbers).to(device)
        self._at = 0

    def __call__(self, logits: Float[Tensor, "rows vocabulary"]) -> Int[Tensor, " rows"]:
        """Choose the token whose part of the cumulative distribution contains the row's next random number."""
        shares = logits.double().softmax(-1).cumsum(-1)
        number = self._numbers[:, self._at, None].double() * shares[:, -1:]
        self._at += 1
        return torch.searchsorted(shares, number, right=True)[:, 0]
