"""Which tokens to hide, and from what they are drawn (Devlin et al. 2019, section 3.1 and appendix A.1)."""

import hashlib
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xformer.data.batch import IGNORED


class MaskingDraws(NamedTuple):
    """Numbers from [0, 1), three for each token: whether it is chosen, what becomes of it, and any token."""

    choice: Float[Tensor, "batch length"]
    fate: Float[Tensor, "batch length"]
    token: Float[Tensor, "batch length"]


def masking_draws(seed: tuple[int, ...], shape: tuple[int, int]) -> MaskingDraws:
    """Draws that depend on the seed alone, for sequences of shape (batch, length)."""
    digest = hashlib.sha256(repr(seed).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return MaskingDraws(*torch.rand(3, *shape, generator=generator))


def send_to_device(x: Tensor, device: torch.device) -> Tensor:
    """To a device that is not waited for: from memory that the system cannot move."""
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)


def content_draws(tokens: Int[Tensor, "batch length"]) -> MaskingDraws:
    """Draws that depend, in every row, on the row's tokens alone."""
    rows = [masking_draws(tuple(row), (1, len(row))) for row in tokens.tolist()]
    return MaskingDraws(*(torch.cat(each).to(tokens.device) for each in zip(*rows, strict=True)))


def mask_tokens(
    tokens: Int[Tensor, "batch length"], drawn: MaskingDraws, *, mask_id: int, rate: float, hidden: float, random: float
) -> tuple[Int[Tensor, "batch length"], Int[Tensor, "batch length"]]:
    """What a model reads and what it has to restore.

    Args:
        tokens: ids below `mask_id`.
        drawn: decides everything that is left to chance.
        mask_id: the mask token, and the number of tokens that another can be replaced by.
        rate: share of each row that is chosen, rounded; at least one token.
        hidden: probability that a chosen token becomes `mask_id`.
        random: probability that it becomes any token, itself included; else it stays.

    Returns:
        The tokens with some replaced, and the labels: the chosen tokens, `IGNORED` elsewhere.
    """
    count = max(1, round(rate * tokens.shape[1]))
    chosen = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, drawn.choice.topk(count).indices, True)
    any_token = (drawn.token * mask_id).long()
    replaced = torch.where(drawn.fate < hidden, mask_id, torch.where(drawn.fate < hidden + random, any_token, tokens))
    return torch.where(chosen, replaced, tokens), tokens.masked_fill(~chosen, IGNORED)
