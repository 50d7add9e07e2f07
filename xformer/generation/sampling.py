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
    """Draws from softmax(logits).

    Every row has random numbers of its own, drawn on the CPU at the start: what it becomes depends on its seed and its
    logits, and neither on the other rows nor on the device.

    Args:
        seeds: one per row.
        max_new: how many tokens are drawn at most.
        device: of the logits.
    """

    def __init__(self, seeds: Sequence[int], max_new: int, device: torch.device | str) -> None:
        numbers = [torch.rand(max_new, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self._numbers = torch.stack(numbers).to(device)
        self._at = 0

    def __call__(self, logits: Float[Tensor, "rows vocabulary"]) -> Int[Tensor, " rows"]:
        """The token in whose share of [0, 1) the row's next random number lies."""
        shares = logits.double().softmax(-1).cumsum(-1)
        number = self._numbers[:, self._at, None].double() * shares[:, -1:]
        self._at += 1
        return torch.searchsorted(shares, number, right=True)[:, 0]
