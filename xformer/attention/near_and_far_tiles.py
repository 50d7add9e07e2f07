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

    def halves(self, scores: Shaped[Tensor, "g c s"]) -> tuple[Shaped[Tensor, "g t q k"], Shaped[Tensor, "g t2 q2 k2"]]:
        """Of rows of scores, the near tiles' and the columns'."""
        return self.near_queries(scores[..., : self.width]), self.far_queries(scores[..., self.width :])

    def _near_keys(self, x: Tensor, rows: Rows, first: int, count: int) -> Tensor:
        tiles = (rows.last - rows.first) * self.row // self.block
        heads, position, feature = x.stride()
        offset = x.storage_offset() + (rows.first * self.row + first) * position
        shape = (len(x), tiles, count, x.shape[2])
        return x.as_strided(shape, (heads, self.block * position, position, feature), offset)


class Scratch:
    """Memory that is used again and again: taking new memory for every product costs a quarter of the whole time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._memory: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(self, name: str, *shape: int, dtype: torch.dtype) -> Tensor:
        """What was last taken by this name is overwritten."""
        memory, size = self._memory.get((name, dtype)), prod(shape)
        if memory is None or memory.numel() < size:
            memory = self._memory[name, dtype] = torch.empty(size, device=self.device, dtype=dtype)
        return memory[:size].view(shape)
