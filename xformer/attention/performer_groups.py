"""Rows and heads a few at a time, so that what is computed of them stays in a processor's cache."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Part = Shaped[Tensor, "g ..."] | None


def in_groups(
    kernel: Callable[..., Tensor], tensors: Sequence[Shaped[Tensor, "b h ..."] | None], each: int, at_a_time: int
) -> Float[Tensor, "b h ..."]:
    """A kernel of rows times heads, for groups of them; on an accelerator for all at once.

    Args:
        kernel: takes a group of each tensor, and returns the group's results.
        tensors: what it takes; the first is there, and has the shape of what it returns.
        each: numbers of the largest thing that it makes of one head.
        at_a_time: how many such numbers there may be.
    """
    first = tensors[0]
    assert first is not None
    flat = [None if tensor is None else tensor.flatten(0, 1) for tensor in tensors]
    total = first.shape[0] * first.shape[1]
    rows = max(1, at_a_time // each) if first.device.type == "cpu" else total
    if total <= rows:  # the gradient of a split is a copy
        return kernel(*flat).view(first.shape)
    groups = -(-total // rows)
    parts: list[Sequence[Part]] = [[None] * groups if x is None else torch.split(x, rows) for x in flat]
    return torch.cat([kernel(*part) for part in zip(*parts, strict=True)]).view(first.shape)
