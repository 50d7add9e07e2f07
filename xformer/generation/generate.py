"""Greedy decoding and sampling, token by token."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from xformer.core.precision import at_least_float32
from xformer.generation.logits_processors import LogitsProcessor
from xformer.generation.prefixes import Prefixes
from xformer.generation.sampling import ChooseToken


@torch.inference_mode()
def stream_tokens(
    prefixes: Prefixes, choose: ChooseToken, *, end: int | None, logits_processors: Sequence[LogitsProcessor] = ()
) -> Iterator[Int[Tensor, " rows"]]:
    """Generate and yield the next token of every row; after its end token, a row repeats it.

    Runs in inference mode: clone the yielded tensors before you train on them or change them.

    Args:
        prefixes: the prompts and the model.
        choose: selects the next token of each row from the logits.
        end: the token that ends a row; None to continue up to the maximum length.
        logits_processors: applied to the logits.
    """
    ended: Tensor | None = None
    for _ in range(prefixes.max_new):
        logits = at_least_float32(prefixes.logits())
        for change in logits_processors:
            logits = change(logits, prefixes)
        tokens = choose(logits)
        if end is not None:
            tokens = tokens if ended is None else tokens.masked_fill(ended, end)
            ended = tokens == end
        prefixes.append(tokens)
        yield tokens
        if ended is not None and bool(ended.all()):
            return


def generate_tokens(
    prefixes: Prefixes, choose: ChooseToken, *, end: int | None, logits_processors: Sequence[LogitsProcessor] = ()
) -> Int[Tensor, "rows new"]:
    """Generate all tokens as `stream_tokens` does, and return them as one tensor."""
    for _ in stream_tokens(prefixes, choose, end=end, logits_processors=logits_processors):
        pass
    return prefixes.written
