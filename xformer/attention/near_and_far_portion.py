"""Some rows of queries of the kernel of near and far keys: the sums and products that it consists of.

Shapes: as in `near_and_far.py`.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from xformer.attention.near_and_far_scores import Scores
from xformer.attention.near_and_far_tiles import Halves, Keys, Memory, NearAndFar, Rows, Tiles


class Portion:
    """Where the tiles of some rows are, looked up once for all groups of heads.

    Args:
        pattern: which keys both halves read.
        scores: of the call.
        rows: of queries.
        memory: for what lives no longer than one portion's turn.
        keys: of a group of heads.
        values: likewise.

    Attributes:
        weights: memory for those of both halves, one after the other.
    """

    def __init__(
        self, pattern: NearAndFar, scores: Scores, rows: Rows, memory: Memory, keys: Keys, values: Keys
    ) -> None:
        self.pattern, self.scores, self.rows, self.memory = pattern, scores, rows, memory
        self.heads, self.dtype = len(keys.near), keys.near.dtype
        self.keys, self.values = (x.read(rows, memory, name) for x, name in ((keys, "keys"), (values, "values")))
        queries = pattern.row * (rows.last - rows.first)
        self._near = self.heads, queries // pattern.block, pattern.block, pattern.width
        self._far = self.heads, pattern.columns, queries // pattern.columns, self.keys.far.tiles.shape[2]
        self._size = (self.heads * queries * (pattern.width + self._far[-1]),)
        self.weights = memory("weights", self._size, self.dtype)
        self._products: dict[tuple[str, tuple[int, ...]], Tiles] = {}
        largest = max(x.tiles[0].numel() for x in self.keys)
        memory("products", (self.heads, max(largest, queries * keys.near.shape[2])), self.dtype)

    def halves(self, scores: Tensor) -> Halves:
        """The tiles of both halves."""
        near, far = scores[: -prod(self._far)].view(self._near), scores[-prod(self._far) :].view(self._far)
        return Halves(Tiles(near), Tiles(far))

    def score(self, out: Halves, group: slice, queries: Halves) -> None:
        """S log2(e)."""
        near, far = out
        self.keys.near.fresh()
        self.scores.near(near.multiply(queries.near.matrices, self.keys.near.turned), group, self.rows, out=near.tiles)
        self.scores.far(far.multiply(queries.far.matrices, self.keys.far.turned), group, self.rows, out=far.tiles)

    def joint(self, reduce: Callable[..., Tensor], join: Callable[..., Any], scores: Halves, out: Tensor) -> None:
        """The largest or the sum over both halves, into numbers of queries, g n 1."""
        near, far = (reduce(x.tiles, dim=-1, keepdim=True) for x in scores)
        out = self.pattern.far_queries(self.pattern.of(self.rows, out))
        join(self.pattern.far_queries(near.flatten(1, 2)), far, out=out)

    def exponentiate(self, scores: Halves, largest: Tensor) -> None:
        """W = 2^(S log2(e) - m), in place."""
        for half, shift in zip(scores, self._of_queries(largest), strict=True):
            half.tiles.sub_(shift).exp2_()

    def differentiate(self, weights: Halves, group: slice, d_out: Halves, shift: Tensor) -> Halves:
        """W (dR V^T - sum(dR O)), of scaled values."""
        self.values.near.fresh()
        d_scores = self.halves(self.memory("d_scores", self._size, self.dtype))
        for d_half, half, out, values, of_half in zip(
            d_scores, weights, d_out, self.values, self._of_queries(shift), strict=True
        ):
            product = d_half.multiply(out.matrices, values.turned)
            torch.sub(product, of_half, out=d_half.tiles).mul_(half.tiles)
        self.scores.differentiate(d_scores.near.tiles, d_scores.far.tiles, group, self.rows)
        return d_scores

    def mix(self, weights: Halves, values: Halves, out: Tensor) -> None:
        """What both halves mix, into tensors g n d."""
        for half in values:
            half.fresh()
        near = self._product(weights.near.matrices, values.near.matrices, "near").flatten(1, 2)
        far = self._product(weights.far.matrices, values.far.matrices)
        out = self.pattern.far_queries(self.pattern.of(self.rows, out))
        torch.add(self.pattern.far_queries(near), far, out=out)

    def add_transposed(self, weights: Halves, queries: Halves, to: Keys) -> None:
        """What keys or values get from the queries that read them."""
        to.add_near(self.rows, self._product(weights.near.turned, queries.near.matrices))
        to.add_far(self.rows, self._product(weights.far.turned, queries.far.matrices))

    def _of_queries(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of numbers of queries, g n 1, those of the near tiles and of the columns: g t q 1."""
        x = self.pattern.of(self.rows, x)
        return self.pattern.near_queries(x), self.pattern.far_queries(x)

    def _product(self, left: Tensor, right: Tensor, name: str = "products") -> Tensor:
        """One matrix product per tile, g t q k."""
        shape = (len(left), left.shape[1], right.shape[2])
        if (name, shape) not in self._products:
            self._products[name, shape] = Tiles(
                self.memory(name, (self.heads, len(left) // self.heads, *shape[1:]), self.dtype)
            )
        return self._products[name, shape].multiply(left, right)
