"""Greedy decoding from an encoder-decoder: always the most likely token."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from xformer.architecture.encoder_decoder import EncoderDecoder


@torch.no_grad()
def greedy(
    model: EncoderDecoder,
    logits: Callable[[Tensor], Tensor],
    source: Int[Tensor, "batch source"],
    padding_mask: Bool[Tensor, "batch source"] | None,
    *,
    begin: int,
    end: int,
    max_new: int,
) -> Int[Tensor, "batch new"]:
    """Write the target of each source, in evaluation mode; after its end token, a row repeats it.

    Attention without incremental state is recomputed for every token.

    Args:
        model: reads the sources.
        logits: hidden states (batch 1 d_model) to logits (batch 1 vocabulary).
        source: token ids.
        padding_mask: True at real tokens of the source.
        begin: the token that a target begins with; it is not returned.
        end: the token that a target ends with.
        max_new: how many tokens to write at most.
    """
    memory = model.encode(source, padding_mask)
    states = model.init_states(memory, max_new) if model.incremental else None
    target = torch.full_like(source[:, :1], begin)
    ended = torch.zeros_like(target, dtype=torch.bool)
    while target.shape[1] <= max_new and not ended.all():
        hidden = model.decode(target, memory) if states is None else model.decode(target[:, -1:], states=states)
        best = logits(hidden[:, -1:]).argmax(-1).masked_fill(ended, end)
        target, ended = torch.cat((target, best), dim=1), ended | (best == end)
    return target[:, 1:]
