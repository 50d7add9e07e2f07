"""Where the keys that a block of queries reads are, and which of them count.

A window's keys are next to each other, so that a view of the padded sequence has them all; the blocks of any other
pattern are gathered.

Shapes: b batch, h heads, n keys, m query blocks, d features of one head; g query blocks of a group, q queries of a
block, s keys that a block reads.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from xformer.attention.pattern import Pattern, Window, cut, even


@dataclass(frozen=True)
class Tokens:
    """Queries and keys in any order, with their positions.

    Attributes:
        query: the scaled products' left side.
        key: their right side.
        value: what is mixed.
        query_positions: of every query.
        key_positions: of every key.
        real: True at keys that exist; None where all do.
        span: positions that matter are below it; fillers may be beyond.
    """

    query: Float[Tensor, "b h q d"]
    key: Float[Tensor, "b h k d"]
    value: Float[Tensor, "b h k d"]
    query_positions: Int[Tensor, " q"]
    key_positions: Int[Tensor, " k"]
    real: Bool[Tensor, "#b k"] | None
    span: int


@dataclass(frozen=True, eq=False)
class Group:
    """A range of query blocks and what each of them reads.

    Attributes:
        blocks: which query blocks.
        reads: the key blocks of each, all of them inside the sequence; None where they are a window.
        query_positions: what distances are between; where all blocks have the same, of one block.
        key_positions: likewise.
        allowed: which pairs count.
    """

    blocks: slice
    reads: Int[Tensor, "#h g w"] | None
    query_positions: Int[Tensor, "#g q 1"]
    key_positions: Int[Tensor, "#h #g 1 s"]
    allowed: Bool[Tensor, "#b #h #g #q s"]

    @property
    def distances(self) -> Int[Tensor, "#h #g q s"]:
        """Key position - query position, made when they are asked for, as they are many."""
        return self.key_positions - self.query_positions


class Layout(ABC):
    """The geometry of a pattern over some tokens, without their content.

    Args:
        tokens: queries and keys.
        pattern: which key blocks a query block reads.
    """

    def __init__(self, tokens: Tokens, pattern: Pattern | Window) -> None:
        self.query_block = pattern.query_block
        self.blocks = -(-tokens.query.shape[2] // pattern.query_block)
        self.length, self.last = tokens.key.shape[2], tokens.span - 1  # the largest distance of two tokens

    @property
    @abstractmethod
    def reads_at_most(self) -> int:
        """How many keys a query block reads, those that do not count included."""

    @abstractmethod
    def ranges(self, room: int) -> Iterator[range]:
        """All query blocks, as many at a time as one head's scores have room for; all of them read as many keys."""

    @abstractmethod
    def group(self, blocks: range) -> Group:
        """Some query blocks."""

    @abstractmethod
    def lay(self, x: Float[Tensor, "b h n d"]) -> Tensor:
        """Keys or values as `read` wants them."""

    @abstractmethod
    def read(self, laid: Tensor, group: Group, heads: slice) -> Float[Tensor, "b h g s d"]:
        """The keys of a group's query blocks, of those heads that are there."""

    @abstractmethod
    def add(self, total: Tensor, group: Group, heads: slice, read: Float[Tensor, "b h g s d"]) -> None:
        """The transpose of `read`."""

    @abstractmethod
    def take_up(self, total: Tensor) -> Float[Tensor, "b h n d"]:
        """The transpose of `lay`."""


def lay_out(tokens: Tokens, pattern: Pattern | Window) -> Layout:
    """A view where the pattern allows one."""
    return _Windows(tokens, pattern) if isinstance(pattern, Window) else _Gathered(tokens, pattern)


class _Gathered(Layout):
    """Key blocks copied together."""

    def __init__(self, tokens: Tokens, pattern: Pattern) -> None:
        super().__init__(tokens, pattern)
        self.pattern = pattern
        # Fillers are given the last position, so that no bias is asked for a distance that two tokens cannot have.
        last = self.last
        self.query_positions = cut(tokens.query_positions.clamp(max=last), 0, pattern.query_block, value=last)
        self.key_positions = cut(tokens.key_positions.clamp(max=last), 0, pattern.key_block, value=last)
        real = tokens.real
        if real is None and len(tokens.key_positions) % pattern.key_block:
            real = torch.ones_like(tokens.key_positions, dtype=torch.bool)[None]
        self.real = None if real is None else cut(real, 1, pattern.key_block)

    @property
    def reads_at_most(self) -> int:
        return (len(self.key_positions) if self.pattern.whole else self.pattern.width) * self.pattern.key_block

    def ranges(self, room: int) -> Iterator[range]:
        whole, pair = min(self.pattern.whole, self.blocks), self.query_block * self.pattern.key_block
        return chain(
            _pieces(range(whole), room // (pair * len(self.key_positions))),
            _pieces(range(whole, self.blocks), room // (pair * self.pattern.width)),
        )

    def group(self, blocks: range) -> Group:
        device, count = self.key_positions.device, len(self.key_positions)
        if blocks.start < self.pattern.whole:
            wanted = torch.arange(count, device=device).expand(1, len(blocks), -1)
        else:
            wanted = self.pattern.reads(blocks, device)
        reads = wanted.clamp(0, count - 1)
        taken = slice(blocks.start, blocks.stop)
        query = self.query_positions[taken, :, None]
        key = self.key_positions[reads].flatten(-2)[..., None, :]  # #h g 1 s
        readable = (reads == wanted).repeat_interleave(self.pattern.key_block, dim=-1)[None]
        if self.real is not None:
            readable = readable & self.real[:, reads].flatten(-2)
        allowed = self.pattern.allowed(query, key) & readable[..., None, :]
        return Group(taken, reads, query, key, allowed)

    def lay(self, x: Tensor) -> Tensor:
        return cut(x, 2, self.pattern.key_block).contiguous()  # where it is not, `index_select` would do so each time

    def read(self, laid: Tensor, group: Group, heads: slice) -> Tensor:
        reads = self._reads(group, heads)
        count = laid.shape[1]
        rows = reads + laid.shape[2] * torch.arange(count, device=laid.device)[:, None, None]
        gathered = laid.flatten(1, 2).index_select(1, rows.flatten())
        return gathered.view(len(laid), count, reads.shape[1], -1, laid.shape[-1])

    def add(self, total: Tensor, group: Group, heads: slice, read: Tensor) -> None:
        reads = self._reads(group, heads).flatten(1).expand(total.shape[1], -1)
        for part, places, source in zip(total.unbind(1), reads, read.unbind(1), strict=True):
            part.index_add_(1, places, source.reshape(len(total), -1, *total.shape[3:]))

    def take_up(self, total: Tensor) -> Tensor:
        return total.flatten(2, 3)[:, :, : self.length]

    def _reads(self, group: Group, heads: slice) -> Tensor:
        assert group.reads is not None
        return group.reads if len(group.reads) == 1 else group.reads[heads]


class _Windows(Layout):
    """Overlapping views of the keys, one a query block; every block sees the same distances."""

    def __init__(self, tokens: Tokens, pattern: Window) -> None:
        super().__init__(tokens, pattern)
        self.pattern = pattern
        self.width = pattern.behind + pattern.query_block + pattern.beyond
        self.device, self.real = tokens.key.device, tokens.real
        query = torch.arange(self.query_block, device=self.device)[:, None]
        key = torch.arange(self.width, device=self.device) - pattern.behind
        self.allowed = pattern.allowed(query, key)
        self.positions = query[None], key[None, None, None]

    @property
    def reads_at_most(self) -> int:
        return self.width

    def ranges(self, room: int) -> Iterator[range]:
        most = room // (self.query_block * self.width)
        # Blocks at the ends read beyond the sequence; those between need no padding.
        inner = range(
            min(-(-self.pattern.behind // self.query_block), self.blocks),
            max(0, self.length - self.pattern.beyond) // self.query_block,
        )
        if len(inner) == 0:
            return _pieces(range(self.blocks), most)
        ranges = range(inner.start), inner, range(inner.stop, self.blocks)
        return chain.from_iterable(_pieces(part, most) for part in ranges)

    def group(self, blocks: range) -> Group:
        taken = slice(blocks.start, blocks.stop)
        allowed, (_, padding) = self.allowed, self._extent(taken)
        if self.real is not None or any(padding):
            real = self.allowed.new_ones(1, self.length) if self.real is None else self.real
            allowed = self.allowed & self._windows(real[:, None, :, None], taken)[..., 0, :][..., None, :]
        allowed = allowed.expand(1, 1, 1, -1, -1) if allowed.dim() == 2 else allowed
        return Group(taken, None, *self.positions, allowed)

    def lay(self, x: Tensor) -> Tensor:
        return x

    def read(self, laid: Tensor, group: Group, heads: slice) -> Tensor:
        return self._windows(laid, group.blocks).mT

    def add(self, total: Tensor, group: Group, heads: slice, read: Tensor) -> None:
        extent, (before, after) = self._extent(group.blocks)
        part = total[:, :, extent]
        padded = pad(torch.zeros_like(part), (0, 0, before, after)) if before or after else part
        for first in range(0, self.width, self.query_block):  # of such columns no two blocks have one in common
            columns = read[:, :, :, first : first + self.query_block]
            windows = padded[:, :, first:].unfold(2, columns.shape[3], self.query_block)
            windows[:, :, : columns.shape[2]].add_(columns.mT)
        if before or after:
            part += padded[:, :, before : before + part.shape[2]]

    def take_up(self, total: Tensor) -> Tensor:
        return total

    def _extent(self, blocks: slice) -> tuple[slice, tuple[int, int]]:
        """The keys that these blocks read, and how many would be before and after them all."""
        first = blocks.start * self.query_block - self.pattern.behind
        end = blocks.stop * self.query_block + self.pattern.beyond
        return slice(max(first, 0), min(end, self.length)), (max(-first, 0), max(end - self.length, 0))

    def _windows(self, x: Tensor, blocks: slice) -> Tensor:
        """Of each query block: b h n d -> b h m d s."""
        extent, (before, after) = self._extent(blocks)
        part = x[:, :, extent]
        part = pad(part, (0, 0, before, after)) if before or after else part
        return part.unfold(2, self.width, self.query_block)


def _pieces(blocks: range, most: int) -> Iterator[range]:
    size = even(len(blocks), max(1, most)) if blocks else 1
    return (range(first, min(first + size, blocks.stop)) for first in range(blocks.start, blocks.stop, size))
