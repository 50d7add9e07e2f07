"""Sampling from a causal model, one token after the other."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from xformer.architecture.stack import Stack


@torch.no_grad()
def sample(
    stack: Stack,
    logits: Callable[..., Tensor],
    prompt: Int[Tensor, " length"],
    new_tokens: int,
    *,
    temperature: float,
    seed: int,
) -> Int[Tensor, " longer"]:
    """Continue a prompt, in evaluation mode.

    Each token is drawn from softmax(logits / temperature) by a generator of its own. A model that cannot exceed its
    length sees the last `max_length` tokens, and an attention without incremental state is recomputed.

    Args:
        stack: the causal stack, which knows its limits and makes decoding states.
        logits: tokens (1 length), and `states` while decoding, to logits (1 length vocabulary).
        prompt: token ids to continue, at least one.
        new_tokens: how many to add.
        temperature: below 1 sharpens the distribution.
        seed: of the draws.
    """
    generator = torch.Generator(prompt.device).manual_seed(seed)
    limit = len(prompt) + new_tokens if stack.extrapolates else stack.max_length
    states = stack.init_states(limit) if stack.incremental else None
    tokens, seen = prompt, 0
    for _ in range(new_tokens):
        if states is not None and len(tokens) <= limit:
            last = logits(tokens[None, seen:], states=states)[0, -1]
            seen = len(tokens)
        else:
            last = logits(tokens[None, -limit:])[0, -1]
        drawn = torch.multinomial((last / temperature).softmax(-1), 1, generator=generator)
        tokens = torch.cat((tokens, drawn))
    return tokens
