"""Which key blocks a block of queries reads, and which pairs inside them count.

A pattern is data for the one kernel of `block_sparse.py`. Blocks make it fast, `allowed` makes it exact: windows and
strides are finer than blocks. A query must not meet a key twice, so the blocks that one query block reads are distinct.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad

LARGEST_BLOCK = 64
"""Beyond this, a block wastes more on pairs that do not count than its larger matrix products save."""
SMALLEST_BLOCK = 16
MULTIPLE = 16
"""Matrix products are fastest where rows are a multiple of a vector register."""


@dataclass(frozen=True)
class Pattern:
    """What the kernel has to know.

    Attributes:
        query_block: queries that share the key blocks they read.
        key_block: keys in a block.
        width: the most key blocks that a query block reads.
        reads: (query blocks, device) -> their key blocks (#heads blocks width); a number outside the sequence is none.
        allowed: (query positions, key positions) -> whether the pair counts; it broadcasts.
        whole: so many query blocks at the beginning read all key blocks instead.
    """

    query_block: int
    key_block: int
    width: int
    reads: Callable[[range, torch.device], Int[Tensor, "#h blocks width"]]
    allowed: Callable[[Tensor, Tensor], Tensor]
    whole: int = 0


@dataclass(frozen=True)
class Window:
    """Keys around a query, of tokens whose positions are 0, 1, 2, ..., queries and keys alike.

    Attributes:
        query_block: queries that share the keys they read.
        behind: they read so many keys before the first of them,
        beyond: and so many after the last.
        allowed: (query positions, key positions) -> whether the pair counts; a function of their distance.
    """

    query_block: int
    behind: int
    beyond: int
    allowed: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """The pairs that count, one by one, for a kernel that finds blocks itself.

    Attributes:
        key: what tells it from other rules; those that have it in common say the same.
        counts: (head, query position, key position) -> whether the pair counts; it broadcasts. A lambda, as whatever
            checks the types of functions while they run would be compiled into the kernel.
        heads: how many heads differ; 1 where none does.
    """

    key: Hashable
    counts: Callable[[Tensor, Tensor, Tensor], Tensor] = field(compare=False)
    heads: int = 1


def blocks_of(positions: range, device: torch.device) -> Int[Tensor, "blocks 1"]:
    """A column of block numbers."""
    return torch.arange(positions.start, positions.stop, device=device)[:, None]


def cut(x: Tensor, dim: int, size: int, value: int = 0) -> Tensor:
    """One dimension, counted from the front, into blocks of `size`, the last one filled up."""
    if x.shape[dim] % size:  # else `pad` would copy
        x = pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, -x.shape[dim] % size), value=value)
    return x.reshape(*x.shape[:dim], x.shape[dim] // size, size, *x.shape[dim + 1 :])


def even(length: int, most: int) -> int:
    """The size of as few equal blocks as cover `length` with at most `most` in each."""
    return -(-length // -(-length // most))


def near(length: int, back: int, ahead: int) -> Window:
    """The keys from `back` positions before a query to `ahead` positions after it, of a sequence of this length."""
    block = even(length, max(SMALLEST_BLOCK, min(LARGEST_BLOCK, back)))
    behind, beyond = (-(-min(side, length - 1) // MULTIPLE) * MULTIPLE for side in (back, ahead))

    def allowed(query: Tensor, key: Tensor) -> Tensor:
        return (key >= query - back) & (key <= query + ahead)

    return Window(block, behind, beyond, allowed)


def everything(
    queries: int,
    keys: int,
    allowed: Callable[[Tensor, Tensor], Tensor],
    keys_before: Callable[[int], int] | None = None,
) -> Pattern:
    """All keys that are allowed, which may be as many as there are.

    Args:
        queries: how many.
        keys: how many.
        allowed: the exact rule.
        keys_before: how many of the keys come before a query; later ones need not be looked at.
    """
    query_block, key_block = even(queries, LARGEST_BLOCK), even(keys, LARGEST_BLOCK)
    width = -(-keys // key_block)

    def reads(blocks: range, device: torch.device) -> Tensor:
        needed = width
        if keys_before is not None:
            needed = max(1, min(width, -(-keys_before(blocks.stop * query_block) // key_block)))
        return torch.arange(needed, device=device).expand(1, len(blocks), needed)

    return Pattern(query_block, key_block, width, reads, allowed)
