"""What a pattern and a bias add to the scores of near and far keys, and how many scores there are at a time."""

from math import e, log2

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from xformer.attention.near_and_far_tiles import Counts, NearAndFar, Rows

SCORES_AT_A_TIME = 1 << 20
"""Small enough to stay near the processor; a graphics processor is given 64 times as many."""
ROWS_AT_A_TIME = 64
"""Enough for good matrix products; more would look at more later keys in vain."""
NO_TOKEN = -1e30
"""The score of a key that is none: its weight is exactly zero beside any key that is one, and never NaN."""
LOG2_E = log2(e)
"""Weights are powers of two: torch has a vector instruction's exp2, while its exp slows down tenfold near underflow."""


class Scores:
    """Of one call, for all heads of all rows of its batch, as exponents of two.

    Args:
        pattern: which pairs count.
        heads: of one row of the batch.
        query: of all heads.
        table: the bias at all distances, by head.
        real: True at keys that exist; None where all do.
    """

    def __init__(
        self,
        pattern: NearAndFar,
        heads: int,
        query: Float[Tensor, "bh n d"],
        table: Float[Tensor, "h distances"] | None,
        real: Bool[Tensor, "bh n"] | None,
    ) -> None:
        self.pattern, self.heads, self.table, self.real = pattern, heads, table, real
        self.device, self.dtype = query.device, query.dtype
        length, self._scale = query.shape[1], query.shape[2] ** -0.5 * LOG2_E
        self.rows = length // pattern.row
        self.positions = torch.arange(length, device=self.device)
        missing = torch.zeros(1, length, device=self.device, dtype=self.dtype)
        if real is not None:
            missing = missing.masked_fill(~real, NO_TOKEN)
        self._missing = pad(missing, (pattern.before, pattern.after), value=NO_TOKEN)[..., None]
        self._near = self._bias(pattern.near_positions(self.device), pattern.near)
        self._far: dict[Rows, Tensor] = {}
        self._d_table: Tensor | None = None

    def portions(self, heads: int) -> tuple[int, list[Rows]]:
        """How many heads are taken together, of any rows of the batch, and which rows of queries."""
        pattern = self.pattern
        room = SCORES_AT_A_TIME << (0 if self.device.type == "cpu" else 6)
        scores = pattern.row * (pattern.width + self.rows * pattern.depth)  # of a row
        step = min(ROWS_AT_A_TIME, room // scores, self.rows)
        step = max(1, step // pattern.rows) * pattern.rows
        rows = [Rows(first, min(first + step, self.rows)) for first in range(0, self.rows, step)]
        return min(heads, max(1, room // (step * scores))), rows

    def near(self, products: Float[Tensor, "g t q k"], group: slice, rows: Rows, out: Tensor) -> None:
        """Scores from products, which may lie where they are written."""
        pattern = self.pattern
        bias = self._near if self.table is None else self._near[self._heads_of(group)]
        torch.add(bias[:, None], products, alpha=self._scale, out=out)
        if self.real is not None or (pattern.before and rows.first == 0) or (pattern.after and rows.last == self.rows):
            missing = self._missing if self.real is None else self._missing[group]
            out += pattern.near_keys(missing, rows).mT

    def far(self, products: Float[Tensor, "g t q k"], group: slice, rows: Rows, out: Tensor) -> None:
        """Scores from products, which may lie where they are written."""
        pattern = self.pattern
        torch.add(self._far_bias(group, rows)[:, None], products, alpha=self._scale, out=out)
        if self.real is not None:
            missing = pattern.sample(self._missing[group, pattern.before : pattern.before + len(self.positions)])
            out += pattern.far_read(missing.flatten(2, 3), rows).mT

    def trace(self) -> None:
        """Keep the gradient of the table from now on."""
        assert self.table is not None
        self._d_table = self.table.new_zeros(self.table.shape)

    def differentiate(self, d_near: Tensor, d_far: Tensor, group: slice, rows: Rows) -> None:
        """Take in the gradients of products, g t q k."""
        if self._d_table is None:
            return
        first = self._heads_of(group)[:, None, None] * self._d_table.shape[1]
        near, far = self.pattern.near_positions(self.device), self.pattern.far_positions(self.positions, rows)
        alpha = LOG2_E / self._scale  # they are those of scores, divided by the square root of d
        for (query, key), gradient in ((near, d_near), (far, d_far)):
            places = first + self._places(query, key)
            self._d_table.view(-1).index_add_(0, places.flatten(), gradient.sum(dim=1).flatten(), alpha=alpha)

    @property
    def d_table(self) -> Tensor | None:
        """The table's gradient, where it was kept."""
        return self._d_table

    def _far_bias(self, group: slice, rows: Rows) -> Tensor:
        positions = self.pattern.far_positions(self.positions, rows)
        if self.table is not None:
            return self._bias(positions, self.pattern.far, self._heads_of(group))
        if rows not in self._far:
            if len(self._far) == 4:  # so that there is a constant number of them
                self._far.clear()
            self._far[rows] = self._bias(positions, self.pattern.far)
        return self._far[rows]

    def _bias(self, positions: tuple[Tensor, Tensor], counts: Counts, heads: Tensor | None = None) -> Tensor:
        query, key = positions
        bias = torch.zeros(1, 1, 1, device=self.device, dtype=self.dtype)
        if self.table is not None:
            table = self.table if heads is None else self.table[heads]
            bias = table[:, self._places(query, key)] * LOG2_E
        return bias.where(counts(query[:, None], key), float("-inf"))  # #h q k

    def _places(self, query: Tensor, key: Tensor) -> Tensor:
        assert self.table is not None
        middle = self.table.shape[1] // 2
        return (key - query[:, None] + middle).clamp(0, 2 * middle)  # only fillers are further apart

    def _heads_of(self, group: slice) -> Tensor:
        return torch.arange(group.start, group.stop, device=self.device) % self.heads
