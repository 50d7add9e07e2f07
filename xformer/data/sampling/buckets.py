"""Batches of items of similar length, limited by a number of tokens instead of items.

Items are sorted by length, longest first, those of one length in random order, and cut greedily: a batch takes as many
as fit while (items x its longest) stays within the budget. The lengths in sorted order are the same in every epoch, and
so the cuts and the number of batches are; what changes is which of equally long items meet, and the order of batches.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler

from xformer.data.sampling.sampler import EpochBatches
from xformer.errors import ConfigError

Lengths = Int64[np.ndarray, " items"]


def cut_batches(lengths: Lengths, budget: int, world: int) -> Int64[np.ndarray, " batches_and_one"]:
    """The batch boundaries of sorted items, from 0 to the number of items.

    Args:
        lengths: tokens of each item, longest first.
        budget: most tokens of a batch, padding included.
        world: fewest items of a batch, but for the last, which may be any rest.

    Raises:
        ConfigError: the budget does not hold `world` of the longest item.
    """
    longest = max(int(lengths[0]), 1)
    if budget < longest * world:
        each = f" on each of the {world} devices" if world > 1 else ""
        raise ConfigError(
            f"data.loader.tokens_per_batch={budget} is too small for a sequence of {longest} tokens{each}: use at "
            f"least {longest * world}, or shorter sequences."
        )
    borders = [0]
    while borders[-1] < len(lengths):
        fitting = budget // max(int(lengths[borders[-1]]), 1)
        borders.append(min(borders[-1] + fitting, len(lengths)))
    return np.array(borders)


class TokenBatches(EpochBatches):
    """Shuffled global batches of at most `budget` tokens; of each, rank r takes every world-th item from r on.

    The global batches are the same on any number of devices, and the ranks' shares of one differ by an item at most.
    Every item is visited once an epoch, but for a rest of the shortest, fewer than there are devices, that cannot be
    shared; on one device there is none.

    Args:
        lengths: tokens of each item.
        budget: most tokens of a global batch: its items times its longest.
        seed: with the epoch, all that the order depends on.
        rank: this process's place among `world`.
        world: number of processes that share each batch.
        frozen: repeat epoch 0's order for ever, for `Trainer(overfit_batches=...)`.

    Raises:
        ConfigError: the budget does not hold one of the longest items on each device, or there are too few items.
    """

    def __init__(
        self, lengths: Lengths, budget: int, seed: int, *, rank: int = 0, world: int = 1, frozen: bool = False
    ) -> None:
        super().__init__()
        if len(lengths) < world:
            raise ConfigError(f"{len(lengths)} sequences cannot be shared by trainer.devices={world}: use fewer.")
        self.lengths, self.seed, self.rank, self.world, self.frozen = lengths, seed, rank, world, frozen
        borders = cut_batches(-np.sort(-lengths), budget, world)
        self.borders = borders[:-1] if borders[-1] - borders[-2] < world else borders

    def __len__(self) -> int:
        return len(self.borders) - 1

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng((self.seed, 0 if self.frozen else self.epoch))
        shuffled = generator.permutation(len(self.lengths))
        items = shuffled[np.argsort(-self.lengths[shuffled], kind="stable")]
        for batch in generator.permutation(len(self))[self.start :]:
            first, last = self.borders[batch : batch + 2]
            yield items[first + self.rank : last : self.world].tolist()


class TokenEvaluationBatches(Sampler[list[int]]):
    """Every item once, in batches of at most `budget` tokens, in a fixed order that mixes short and long ones.

    Every rank runs equally many batches. Where the rest of the shortest items is fewer than the devices, the batch
    before lends it some; where that has none to lend they are one batch, in which a rank has two items.

    Args:
        lengths: tokens of each item.
        budget: most tokens of a global batch: its items times its longest.
        rank: this process's place among `world`.
        world: number of processes that share the items.

    Raises:
        ConfigError: the budget does not hold one of the longest items on each device, or there are too few items.
    """

    def __init__(self, lengths: Lengths, budget: int, *, rank: int = 0, world: int = 1) -> None:
        if len(lengths) < world:
            raise ConfigError(
                f"{len(lengths)} sequences cannot be evaluated on trainer.devices={world}: use fewer devices."
            )
        self.items, self.rank, self.world = np.argsort(-lengths, kind="stable"), rank, world
        borders = cut_batches(lengths[self.items], budget, world).tolist()
        if borders[-1] - borders[-2] < world:
            lent = borders[-1] - world
            borders[-2:-1] = [lent] if lent - borders[-3] >= world else []
        self.borders = borders

    def __len__(self) -> int:
        return len(self.borders) - 1

    def __iter__(self) -> Iterator[list[int]]:
        # Whoever reads the first batches alone should not meet the longest items alone.
        for batch in np.random.default_rng(0).permutation(len(self)):
            first, last = self.borders[batch : batch + 2]
            yield self.items[first + self.rank : last : self.world].tolist()
