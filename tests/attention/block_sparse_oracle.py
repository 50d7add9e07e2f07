"""Dense attention under boolean matrices that are written pair by pair, from the papers' definitions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xformer.attention.base import Attention, AttentionContext
from xformer.attention.bigbird import BigBird
from xformer.attention.local import Local
from xformer.attention.sparse import Sparse
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.mask import Mask

HEADS, HEAD_DIM, MAX_LENGTH = 3, 4, 40


@dataclass(frozen=True)
class Variant:
    build: Callable[..., Attention]
    keywords: dict[str, Any]
    reads: Callable[[Any, int, int, int, int, bool], bool]  # (attention, head, i, j, length, causal)

    def attention(
        self, causal: bool, heads: int = HEADS, max_length: int = MAX_LENGTH, head_dim: int = HEAD_DIM
    ) -> Any:
        torch.manual_seed(0)
        return self.build(AttentionContext(heads, head_dim, max_length, max_length, causal), **self.keywords)


def local(attention: Local, head: int, i: int, j: int, length: int, causal: bool) -> bool:
    return 0 <= i - j <= attention.window if causal else abs(i - j) <= attention.window


def sparse(attention: Sparse, head: int, i: int, j: int, length: int, causal: bool) -> bool:
    stride, summary = attention.stride, attention.summary
    if attention.pattern == "strided":
        first, second = abs(i - j) < stride, (i - j) % stride == 0
    else:
        first, second = i // stride == j // stride, j % stride in range(stride - summary, stride)
    own_half = first if head < attention.context.heads // 2 else second
    reads = first or second if attention.heads == "merged" else own_half
    return reads and (j <= i or not causal)


def bigbird(attention: BigBird, head: int, i: int, j: int, length: int, causal: bool) -> bool:
    block, g, side = attention.block, attention.global_blocks, attention.side
    query, key = i // block, j // block
    if causal and j > i:
        return False
    if key < g or (query < g and not causal) or abs(query - key) <= side:
        return True
    end = query - side if causal else max(attention.blocks, query + 1)
    left = [other for other in range(g, end) if abs(other - query) > side]
    for number in attention.draws[head, query % attention.blocks].tolist():
        if left and left.pop(number % len(left)) == key:
            return True
    return False


def strided(stride: int | None, heads: str) -> dict[str, Any]:
    return {"pattern": "strided", "stride": stride, "summary": 1, "heads": heads}


def fixed(stride: int, summary: int, heads: str) -> dict[str, Any]:
    return {"pattern": "fixed", "stride": stride, "summary": summary, "heads": heads}


def blocks(block: int, global_blocks: int, window_blocks: int, random_blocks: int) -> dict[str, int]:
    return dict(block=block, global_blocks=global_blocks, window_blocks=window_blocks, random_blocks=random_blocks)


VARIANTS = {
    "local, itself": Variant(Local, {"window": 0}, local),
    "local": Variant(Local, {"window": 5}, local),
    "local, wide": Variant(Local, {"window": 20}, local),
    "strided": Variant(Sparse, strided(4, "merged"), sparse),
    "strided, square root": Variant(Sparse, strided(None, "merged"), sparse),
    "strided, split": Variant(Sparse, strided(3, "split"), sparse),
    "fixed": Variant(Sparse, fixed(4, 1, "merged"), sparse),
    "fixed, two columns": Variant(Sparse, fixed(18, 2, "merged"), sparse),
    "fixed, split": Variant(Sparse, fixed(5, 2, "split"), sparse),
    "bigbird": Variant(BigBird, blocks(4, 1, 3, 2), bigbird),
    "bigbird, no random": Variant(BigBird, blocks(3, 2, 1, 0), bigbird),
    "bigbird, no global": Variant(BigBird, blocks(2, 0, 5, 3), bigbird),
}


class Table(TableBias, nn.Module):
    """A learned number per head and distance."""

    def __init__(self, heads: int = HEADS, reach: int = 100) -> None:
        nn.Module.__init__(self)
        self.reach = reach
        self.weight = nn.Parameter(torch.randn(heads, 2 * reach + 1))

    def table(self, distances: Tensor) -> Tensor:
        assert distances.abs().max() <= self.reach
        return self.weight[:, distances + self.reach]


class Content(RelativeBias, nn.Module):
    """Products of the query with a learned vector per head and distance, and such vectors for the values."""

    def __init__(self, heads: int = HEADS, reach: int = 100, head_dim: int = HEAD_DIM) -> None:
        nn.Module.__init__(self)
        self.reach = reach
        self.keys = nn.Parameter(torch.randn(heads, 2 * reach + 1, head_dim))
        self.vectors = nn.Parameter(torch.randn(heads, 2 * reach + 1, head_dim))

    def scores(self, query: Tensor, distances: Tensor) -> Tensor:
        assert distances.shape[1:-1] == query.shape[2:-1]
        return torch.einsum("bh...qd,hb...qkd->bh...qk", query, self._of(self.keys, query, distances))

    def values(self, weights: Tensor, distances: Tensor) -> Tensor:
        return torch.einsum("bh...qk,hb...qkd->bh...qd", weights, self._of(self.vectors, weights, distances))

    def _of(self, table: Tensor, like: Tensor, distances: Tensor) -> Tensor:
        assert distances.abs().max() <= self.reach
        return table[:, distances.expand(len(like), *distances.shape[1:]) + self.reach]


BIASES: dict[str, Callable[..., Any]] = {"no bias": lambda **_: None, "table": Table, "content": Content}


def matrix(variant: Variant, attention: Any, length: int, causal: bool) -> Tensor:
    heads, every = range(attention.context.heads), range(length)
    rows = [[[variant.reads(attention, h, i, j, length, causal) for j in every] for i in every] for h in heads]
    return torch.tensor(rows)


def evaluated(attention: Any, length: int, causal: bool) -> Tensor:
    """The variant's own statement, of all pairs: h n n."""
    heads, index = torch.arange(attention.context.heads)[:, None, None], torch.arange(length)
    allowed = attention.mask_mod(length, causal=causal)(heads, index[:, None], index)
    return allowed.expand(len(heads), length, length)


class Nothing(RelativeBias):
    """Adds zeros, as a bias that depends on the query."""

    def scores(self, query: Tensor, distances: Tensor) -> Tensor:
        return query.new_zeros(*query.shape[:-1], distances.shape[-1])


def times_read(attention: Any, length: int, causal: bool, bias: RelativeBias | None = None) -> Tensor:
    """How often each query reads each key, seen from outside: equal scores, and values that tell the keys apart."""
    heads = attention.context.heads
    value, allowed = torch.eye(length).expand(1, heads, -1, -1), evaluated(attention, length, causal)
    still = torch.zeros(1, heads, length, length)
    with torch.no_grad():
        weights: Tensor = attention(still, still, value, mask=own_mask(length, causal), bias=bias)[0]
    return weights * allowed.sum(-1, keepdim=True)


def decoded(attention: Any, length: int) -> Tensor:
    """How often each query's step lists each key that is there: h n n."""
    query, size = torch.arange(length), attention.init_state(length).size
    listed = attention.keys_of(query, size).expand(-1, attention.context.heads, -1)  # n h k
    there = (listed >= 0) & (listed <= query[:, None, None])
    times = torch.zeros(length, attention.context.heads, length + 1, dtype=torch.long)
    return times.scatter_add(2, listed.where(there, length), there.long())[..., :length].transpose(0, 1)


def dense(query: Tensor, key: Tensor, value: Tensor, reads: Tensor, bias: Any = None) -> Tensor:
    positions = torch.arange(key.shape[2])
    distances = (positions - positions[:, None])[None]
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + bias.scores(query, distances)
    some = reads.any(-1, keepdim=True)
    weights = scores.masked_fill(~reads & some, -torch.inf).softmax(-1) * some
    term = bias.values(weights, distances) if bias is not None else None
    return weights @ value if term is None else weights @ value + term


def qkv(batch: int, length: int, heads: int = HEADS, head_dim: int = HEAD_DIM) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shape = (batch, heads, length, head_dim)
    return [torch.randn(shape, generator=generator).requires_grad_() for _ in range(3)]


def own_mask(length: int, causal: bool, start: int = 0) -> Mask:
    positions = torch.arange(start, start + length)[None]
    return Mask(positions, positions, causal)
