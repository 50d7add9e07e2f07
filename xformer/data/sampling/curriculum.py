"""Curriculum sampling: a share of the shortest items that grows with the steps (Platanios et al. 2019)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped

from xformer.errors import ConfigError


@dataclass(frozen=True)
class Pace:
    """The pace of a curriculum: how the share of allowed items grows."""

    initial: float  # the share in the first batch
    batches: int  # after so many batches all are allowed; on the way the share grows linearly

    def share(self, batch: int) -> float:
        """The competence of Platanios et al. (2019, equation 7) before a training batch, counted from the first."""
        return 1.0 - (1 - self.initial) * max(0.0, 1 - batch / self.batches)  # 1 exactly, in the end


class ShorterItems:
    """Replaces items that are not allowed yet by shorter ones.

    Items are ranked by length; with m of n allowed, the item of rank r is replaced by that of rank floor(r m / n).
    So, without a draw, the m shortest items are visited equally often; a batch's items become shorter and none longer,
    keep their order of length and thereby do not exceed a budget of tokens. What a batch holds depends on the seed,
    the epoch and the batch's number alone, like the order of the batches.

    Args:
        lengths: of all items; None where they have none.
        pace: the share allowed at each batch.
        trained: the batches of an epoch that are trained on, which a trainer may limit.

    Raises:
        ConfigError: the items have no lengths, or they are all the same.
    """

    def __init__(self, lengths: Shaped[np.ndarray, " items"] | None, pace: Pace, trained: int) -> None:
        if lengths is None or np.min(lengths) == np.max(lengths):
            raise ConfigError(
                "callbacks=curriculum begins with short items, and all training items of these data are equally "
                "long: leave it out, or choose data of different lengths, such as data=listops or data=transduction."
            )
        self.pace, self.trained = pace, trained
        self.ranked = np.argsort(lengths, kind="stable")
        self.rank = np.argsort(self.ranked)

    def __call__(self, items: Int64[np.ndarray, " batch"], epoch: int, batch: int) -> Int64[np.ndarray, " batch"]:
        """The replacement items of a batch of an epoch."""
        return self.replaced(items, self.pace.share(epoch * self.trained + batch))

    def replaced(self, items: Int64[np.ndarray, " batch"], share: float) -> Int64[np.ndarray, " batch"]:
        """The replacement items for a share of allowed items; at least one item is allowed."""
        size = len(self.ranked)
        allowed = max(1, int(share * size))
        # A fresh item's number is its shape's plus a multiple of the size: the shape has the length.
        shapes = items % size
        return np.asarray(items - shapes + self.ranked[self.rank[shapes] * allowed // size])
