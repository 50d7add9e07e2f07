"""Decay over segments of tokens, summed in logarithms without subtracting longer sums, for precision.

A chunk may first decay by a factor outside the range of float32 and then hardly at all; in the difference of two
cumulative sums the second part would be lost to rounding.

Shapes: c tokens of a chunk, d features, or 1 where they decay alike.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad


def decay_between(log_decay: Float[Tensor, "*batch c d"]) -> Float[Tensor, "*batch c c d"]:
    """exp(g_(j+1) + ... + g_i) at (i, j): what is left at token i of what token j wrote; 0 for j > i."""
    length = log_decay.shape[-2]
    token = torch.arange(length, device=log_decay.device)
    after = (token[:, None] > token)[..., None]  # i j 1
    summed = log_decay.unsqueeze(-2).expand(*log_decay.shape[:-1], length, -1).masked_fill(~after, 0.0).cumsum(-3)
    return summed.masked_fill((token[:, None] < token)[..., None], float("-inf")).exp()


def decay_from_start(log_decay: Float[Tensor, "*batch c d"]) -> Float[Tensor, "*batch c d"]:
    """exp(g_1 + ... + g_i): what is left at token i of the state before the chunk."""
    return log_decay.cumsum(-2).exp()


def decay_to_end(log_decay: Float[Tensor, "*batch c d"]) -> Float[Tensor, "*batch c d"]:
    """exp(g_(j+1) + ... + g_c): what is left at the end of the chunk of what token j wrote."""
    later = pad(log_decay[..., 1:, :], (0, 0, 0, 1))
    return later.flip(-2).cumsum(-2).flip(-2).exp()


def in_chunks(chunk: int, *tensors: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], ...]:
    """Each (b h n d) as (b h chunks c d), with zeros after its end.

    Args:
        chunk: c, a power of two; for fewer tokens, the smallest that holds them.
        tensors: tensors of equally many tokens; zeros neither write nor decay the state. For none there is one chunk.
    """
    length = tensors[0].shape[2]
    while chunk >= 2 * length and chunk > 1:
        chunk //= 2
    chunks = max(1, -(-length // chunk))
    whole = (pad(x, (0, 0, 0, chunks * chunk - length)) for x in tensors)
    return tuple(x.reshape(*x.shape[:2], chunks, chunk, x.shape[-1]) for x in whole)
