"""Token masking: which tokens are masked and what replaces them (Devlin et al. 2019, section 3.1, appendix A.1)."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Interval
from jaxtyping import Float, Int
from torch import Tensor

from xformer.data.batch import IGNORED
from xformer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """Settings of masking: the share of tokens to predict, and what replaces them.

    Attributes:
        rate: the share of a sequence's tokens to select, rounded, at least one token; 0.15 in the paper.
        hidden: the share of selected tokens replaced by the mask token; 0.8 in the paper.
        random: the share replaced by a uniformly random token; 0.1 in the paper. The rest is unchanged.
        seed: the seed of the masks in training.

    Raises:
        ConfigError: the shares of hidden and random tokens exceed 1 together.
    """

    rate: Annotated[float, Interval(gt=0, le=1)]
    hidden: Annotated[float, Interval(ge=0, le=1)]
    random: Annotated[float, Interval(ge=0, le=1)]
    seed: Annotated[int, Ge(0)]

    def __post_init__(self) -> None:
        if self.hidden + self.random > 1:
            raise ConfigError(
                f"task.masking.hidden={self.hidden} and task.masking.random={self.random} are shares of the same "
                "tokens: their sum must be at most 1."
            )


class MaskingDraws(NamedTuple):
    """Random numbers in [0, 1), three for each token: whether it is selected, how it is replaced, and by what."""

    choice: Float[Tensor, "batch length"]
    fate: Float[Tensor, "batch length"]
    token: Float[Tensor, "batch length"]


def masking_draws(seed: tuple[int, ...], shape: tuple[int, int]) -> MaskingDraws:
    """Random draws that depend only on the seed, for sequences of shape (batch, length)."""
    digest = hashlib.sha256(repr(seed).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return MaskingDraws(*torch.rand(3, *shape, generator=generator))


def send_to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy to a device without waiting, from pinned memory."""
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)


def content_draws(tokens: Int[Tensor, "batch length"]) -> MaskingDraws:
    """Random draws that depend, in every row, only on the row's tokens."""
    rows = [masking_draws(tuple(row), (1, len(row))) for row in tokens.tolist()]
    return MaskingDraws(*(torch.cat(each).to(tokens.device) for each in zip(*rows, strict=True)))


def mask_tokens(
    tokens: Int[Tensor, "batch length"], drawn: MaskingDraws, *, mask_id: int, rate: float, hidden: float, random: float
) -> tuple[Int[Tensor, "batch length"], Int[Tensor, "batch length"]]:
    """Mask tokens: return the model's input and the labels.

    Args:
        tokens: ids below `mask_id`.
        drawn: the random draws.
        mask_id: the mask token; random replacements are below it.
        rate: the share of each row to select, rounded; at least one token.
        hidden: the probability that a selected token becomes `mask_id`.
        random: the probability that it becomes a uniformly random token; otherwise it is unchanged.

    Returns:
        The tokens with some replaced, and the labels: the selected tokens, `IGNORED` elsewhere.
    """
    count = max(1, round(rate * tokens.shape[1]))
    chosen = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, drawn.choice.topk(count).indices, True)
    any_token = (drawn.token * mask_id).long()
    replaced = torch.where(drawn.fate < hidden, mask_id, torch.where(drawn.fate < hidden + random, any_token, tokens))
    return torch.where(chosen, replaced, tokens), tokens.masked_fill(~chosen, IGNORED)
