"""Sampling from a causal model, one token after the other."""

from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from xformer.architecture.stack import Stack


class NextToken(Protocol):
    """A model that gives the logits of the next token at every position."""

    model: Stack
    training: bool

    def __call__(self, tokens: Tensor, **decoding: object) -> Tensor:
        """Logits (batch length vocabulary)."""

    def train(self, mode: bool) -> object:
        """Switch dropout on or off."""


@torch.inference_mode()
def sample(
    network: NextToken, prompt: Int[Tensor, " length"], new_tokens: int, *, temperature: float, seed: int
) -> Int[Tensor, " length_and_new"]:
    """Continue a prompt.

    Each token is drawn from softmax(logits / temperature) by a generator of its own. A model that cannot exceed its
    length sees the last `max_length` tokens, and an attention without incremental state is recomputed.
    """
    stack = network.model
    generator = torch.Generator(prompt.device).manual_seed(seed)
    was_training = network.training
    network.train(False)
    tokens = prompt
    limit = len(prompt) + new_tokens if stack.extrapolates else stack.max_length
    states = stack.init_states(limit) if stack.incremental else None
    seen = 0
    for _ in range(new_tokens):
        if states is not None and len(tokens) <= limit:
            logits = network(tokens[None, seen:], states=states)[0, -1]
            seen = len(tokens)
        else:
            logits = network(tokens[None, -limit:])[0, -1]
        chosen = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        tokens = torch.cat((tokens, chosen))
    network.train(was_training)
    return tokens
