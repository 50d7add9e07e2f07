"""How the near and the far half of a pattern cut tokens into tiles: views and their transposes.

Shapes: g heads, n positions, c positions of some rows; t tiles, q queries and k keys of a tile; d features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

Counts = Callable[[Tensor, Tensor], Tensor]
"""(query positions, key positions) -> whether the pair counts; it broadcasts."""


class Rows(NamedTuple):
    """From the first to the one before the last."""

    first: int
    last: int


@dataclass(frozen=True)
class NearAndFar:
    """A pattern: which keys are near a query, and which of the far ones it reads; no key is both.

    Attributes:
        row: positions in a row.
        block: queries of a near tile; a multiple or a divisor of `row`.
        before: keys of a near tile before its queries.
        after: keys of a near tile after its queries.
        columns: far tiles; a divisor of `row` and of `sampled`.
        sampled: the last positions of every row that are far keys.
        near: the near pairs that count. It is given positions in a tile, from its first query on.
        far: the far pairs that count. It is given those of the first column.
        causal: no far key is in a later row.
    """

    row: int
    block: int
    before: int
    after: int
    columns: int
    sampled: int
    near: Counts
    far: Counts
    causal: bool

    @property
    def rows(self) -> int:
        """What a number of rows has to be a multiple of."""
        return max(1, self.block // self.row)

    @property
    def width(self) -> int:
        """Keys of a near tile."""
        return self.before + self.block + self.after

    @property
    def depth(self) -> int:
        """Far keys that a row gives to a column."""
        return self.sampled // self.columns

    def near_positions(self, device: torch.device) -> tuple[Int[Tensor, " q"], Int[Tensor, " k"]]:
        """Of a tile's queries and keys, the first query being 0."""
        keys = torch.arange(-self.before, self.block + self.after, device=device)
        return keys[self.before : self.before + self.block], keys

    def far_positions(self, positions: Int[Tensor, " n"], rows: Rows) -> tuple[Int[Tensor, " q"], Int[Tensor, " k"]]:
        """Of the first column's queries in some rows, and of the keys they look at."""
        x = positions[None, :, None]
        query, key = self.far_queries(self.of(rows, x)), self.far_read(self.sample(x).flatten(2, 3), rows)
        return query[0, 0, :, 0], key[0, 0, :, 0]

    def of(self, rows: Rows, x: Shaped[Tensor, "g n d"]) -> Shaped[Tensor, "g c d"]:
        """Some rows of tokens."""
        return x[:, rows.first * self.row : rows.last * self.row]

    def near_queries(self, x: Shaped[Tensor, "g c d"]) -> Shaped[Tensor, "g t q d"]:
        """The queries of all near tiles."""
        return x.view(len(x), -1, self.block, x.shape[2])

    def far_queries(self, x: Shaped[Tensor, "g c d"]) -> Shaped[Tensor, "g t q d"]:
        """The queries of all columns."""
        return x.view(len(x), -1, self.columns, x.shape[2]).transpose(1, 2)

    def near_keys(self, x: Shaped[Tensor, "g m d"], rows: Rows) -> Shaped[Tensor, "g t k d"]:
        """The keys of the near tiles of some rows; x begins `before` positions early and ends `after` late."""
        return self._near_keys(x, rows, 0, self.width)

    def add_near_keys(self, total: Shaped[Tensor, "g m d"], rows: Rows, x: Shaped[Tensor, "g t k d"]) -> None:
        """The transpose of `near_keys`; tiles overlap, their parts of the size of a block do not."""
        for first in range(0, self.width, self.block):
            part = x[:, :, first : first + self.block]
            self._near_keys(total, rows, first, part.shape[2]).add_(part)

    def sample(self, x: Shaped[Tensor, "g n d"]) -> Shaped[Tensor, "g t r k d"]:
        """The far keys of all columns, by row."""
        by_row = x.view(len(x), -1, self.row, x.shape[2])[:, :, self.row - self.sampled :]
        return by_row.view(len(x), -1, self.depth, self.columns, x.shape[2]).permute(0, 3, 1, 2, 4)

    def far_read(self, x: Shaped[Tensor, "g t k d"], rows: Rows) -> Shaped[Tensor, "g t k2 d"]:
        """The far keys that the queries of some rows look at."""
        return x[:, :, : self.depth * rows.last] if self.causal else x

    def _near_keys(self, x: Tensor, rows: Rows, first: int, count: int) -> Tensor:
        tiles = (rows.last - rows.first) * self.row // self.block
        heads, position, feature = x.stride()
        offset = x.storage_offset() + (rows.first * self.row + first) * position
        shape = (len(x), tiles, count, x.shape[2])
        return x.as_strided(shape, (heads, self.block * position, position, feature), offset)


class Memory:
    """Memory by name, which is overwritten by whoever takes it next by that name, in the same or another shape."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._taken: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor, of any content."""
        taken, size = self._taken.get((name, dtype)), prod(shape)
        if taken is None or taken.numel() < size:
            taken = self._taken[name, dtype] = torch.empty(size, device=self.device, dtype=dtype)
        return taken[:size].view(shape)


class Tiles:
    """Tiles, and the matrices of them that a product takes: these are a view, or a copy for `fresh` to renew.

    Attributes:
        tiles: where they are, g t q k.
        matrices: one after another, (g t) q k.
        turned: their transposes.
    """

    def __init__(self, tiles: Tensor, copy: Tensor | None = None) -> None:
        self.tiles, self._copy = tiles, copy
        self.matrices = (tiles if copy is None else copy).flatten(0, 1)
        self.turned = self.matrices.mT

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        """One matrix product per tile, g t q k, where `matrices` are."""
        torch.bmm(left, right, out=self.matrices)
        return self.matrices.view(self.tiles.shape)

    def fresh(self) -> "Tiles":
        """Copy the tiles again, if that is needed at all."""
        if self._copy is not None:
            self._copy.copy_(self.tiles)
        return self


class Halves(NamedTuple):
    """What both halves of a pattern have of the same thing."""

    near: Tiles
    far: Tiles


class Queries:
    """Queries of a group of heads, or what they mix, as tiles of both halves.

    Args:
        pattern: how they are cut.
        like: a group of heads, g n d.
    """

    def __init__(self, pattern: NearAndFar, like: Tensor) -> None:
        self.pattern = pattern
        self._near = like
        self._far = like.new_empty(pattern.far_queries(like).shape)
        self._tiles: dict[Rows, Tiles] = {}

    def put(self, x: Tensor) -> None:
        """Take over a group of heads, g n d."""
        self._near = x
        self._far.copy_(self.pattern.far_queries(x))

    def of(self, rows: Rows) -> Halves:
        """The tiles of some rows."""
        if rows not in self._tiles:
            each = self.pattern.row // self.pattern.columns
            self._tiles[rows] = Tiles(self._far[:, :, rows.first * each : rows.last * each])
        return Halves(Tiles(self.pattern.near_queries(self.pattern.of(rows, self._near))), self._tiles[rows])


class Keys:
    """Keys or values of a group of heads, or their gradients, as both halves read them.

    Args:
        pattern: which keys both halves read.
        like: a group of heads, g n d.
    """

    def __init__(self, pattern: NearAndFar, like: Tensor) -> None:
        self.pattern = pattern
        heads, length, features = like.shape
        self.near = like.new_zeros(heads, pattern.before + length + pattern.after, features)
        self.far = like.new_empty(pattern.sample(like).shape)
        self._inner = self.near[:, pattern.before : pattern.before + length]
        self._far_is_clear = False

    def put(self, x: Tensor, scale: float = 1.0) -> None:
        """Take over a group of heads, g n d."""
        torch.mul(x, scale, out=self._inner)
        self.far.copy_(self.pattern.sample(self._inner))

    def read(self, rows: Rows, memory: Memory, name: str) -> Halves:
        """What some rows of queries read."""
        near = self.pattern.near_keys(self.near, rows)
        copy = None if len(near) == 1 else memory(name, near.shape, near.dtype)  # tiles overlap
        return Halves(Tiles(near, copy), Tiles(self._read_far(rows)))

    def clear(self) -> None:
        """Nothing but zeros."""
        self.near.zero_()
        self._far_is_clear = True

    def add_near(self, rows: Rows, x: Tensor) -> None:
        """The transpose of reading."""
        self.pattern.add_near_keys(self.near, rows, x)

    def add_far(self, rows: Rows, x: Tensor) -> None:
        """The transpose of reading; the first rows after `clear` must read all that is read."""
        far = self._read_far(rows)
        far.copy_(x) if self._far_is_clear else far.add_(x)
        self._far_is_clear = False

    def get(self, out: Tensor) -> None:
        """The transpose of `put`."""
        if self.pattern.sampled < self.pattern.row:
            out.copy_(self._inner)
        torch.add(self.pattern.sample(self._inner), self.far, out=self.pattern.sample(out))

    def _read_far(self, rows: Rows) -> Tensor:
        return self.pattern.far_read(self.far.flatten(2, 3), rows)
