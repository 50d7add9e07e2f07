"""Token by token: greedy decoding and sampling."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from xformer.core.precision import wide
from xformer.generation.choice import Choice
from xformer.generation.logits_processors import Filter
from xformer.generation.prefixes import Prefixes


@torch.inference_mode()
def stream(
    prefixes: Prefixes, choose: Choice, *, end: int | None, filters: Sequence[Filter] = ()
) -> Iterator[Int[Tensor, " rows"]]:
    """Write, and yield every row's next token as it comes; after its end token, a row repeats it.

    In inference mode: whoever trains on what is yielded, or changes it, has to clone it, and the prefixes go on in that
    mode alone.

    Args:
        prefixes: what the rows begin with, and the model that writes.
        choose: the next token of each row.
        end: the token that a row ends with; None where it goes on until there is no room.
        filters: what changes the logits before.
    """
    ended: Tensor | None = None
    for _ in range(prefixes.max_new):
        logits = wide(prefixes.logits())
        for change in filters:
            logits = change(logits, prefixes)
        tokens = choose(logits)
        if end is not None:
            tokens = tokens if ended is None else tokens.masked_fill(ended, end)
            ended = tokens == end
        prefixes.append(tokens)
        yield tokens
        if ended is not None and bool(ended.all()):
            return


def write(
    prefixes: Prefixes, choose: Choice, *, end: int | None, filters: Sequence[Filter] = ()
) -> Int[Tensor, "rows new"]:
    """What `stream` yields, as one."""
    for _ in stream(prefixes, choose, end=end, filters=filters):
        pass
    return prefixes.written
