"""Curriculum sampling: a share of the shortest items that grows with the steps (Platanios et al. 2019)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from torch.utils.data import Sampler

from xformer.data.sampling.sampler import EpochBatches
from xformer.data.split import Split
from xformer.errors import ConfigError


@dataclass(frozen=True)
class Pace:
    """The pace of a curriculum: how the share of allowed items grows.

    Attributes:
        initial: the share in the first batch.
        batches: after so many batches all are allowed; on the way the share grows linearly.
    """

    initial: float
    batches: int

    def share(self, batch: int) -> float:
        """The competence of Platanios et al. (2019, equation 7) before a training batch, counted from the first."""
        return 1.0 - (1 - self.initial) * max(0.0, 1 - batch / self.batches)  # 1 exactly, in the end


class CurriculumBatches(Sampler[list[int]]):
    """Batches in which items that are not allowed yet are replaced by shorter ones.

    Items are ranked by length; with m of n allowed, the item of rank r is replaced by that of rank floor(r m / n).
    So, without a draw, the m shortest items are visited equally often; a batch's items become shorter and none longer,
    keep their order of length and thereby do not exceed a budget of tokens. What a batch holds depends on the seed,
    the epoch and the batch's number alone, like the order of the batches it is made of.

    Args:
        batches: of all the items.
        split: the items, with `lengths`, one for each.
        pace: the share allowed at each batch.
        trained: the batches of an epoch that are trained on, which a trainer may limit.

    Raises:
        ConfigError: the items have no lengths, or they are all the same.
    """

    def __init__(self, batches: EpochBatches, split: Split, pace: Pace, trained: int) -> None:
        self.batches, self.pace, self.trained = batches, pace, trained
        self.ranked = np.argsort(_lengths(split), kind="stable")
        self.rank = np.empty_like(self.ranked)
        self.rank[self.ranked] = np.arange(len(self.ranked))

    @property
    def epoch(self) -> int:
        """The epoch whose batches are iterated."""
        return self.batches.epoch

    @property
    def start(self) -> int:
        """The number of batches to skip in this epoch, because they were consumed before a resume."""
        return self.batches.start

    @start.setter
    def start(self, batch: int) -> None:
        self.batches.start = batch

    @property
    def sampler(self) -> "CurriculumBatches":
        """Itself, as Lightning looks for `set_epoch` here."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.trained + self.start
        for number, items in enumerate(self.batches, first):
            yield self.replaced(items, self.pace.share(number))

    def replaced(self, items: list[int], share: float) -> list[int]:
        """The replacement items for a share of allowed items; at least one item is allowed."""
        size = len(self.ranked)
        allowed = max(1, int(share * size))
        # A fresh item's number is its shape's plus a multiple of the size: the shape has the length.
        return [item - item % size + int(self.ranked[self.rank[item % size] * allowed // size]) for item in items]


def _lengths(split: Split) -> Shaped[np.ndarray, " items"]:
    lengths = split.lengths
    if lengths is None or np.min(lengths) == np.max(lengths):
        raise ConfigError(
            "callbacks=curriculum begins with short items, and all training items of these data are equally "
            "long: leave it out, or choose data of different lengths, such as data=listops or data=transduction."
        )
    return np.asarray(lengths)
