"""Batches of items of similar length, limited by a number of tokens instead of items.

Items are sorted by length, longest first, those of one length in random order, and cut greedily: a batch takes as many
as fit while (items x its longest) stays within the budget. The lengths in sorted order are the same in every epoch, and
so the cuts and the number of batches are; what changes is which of equally long items meet, and the order of batches.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from xformer.data.sampling.sampler import EpochBatches
from xformer.errors import ConfigError

Lengths = Int64[np.ndarray, " items"]


def cut_batches(lengths: Lengths, budget: int, world: int, verb: str) -> list[int]:
    """The batch boundaries of sorted items, from 0 to the number of items.

    Args:
        lengths: tokens of each item, longest first.
        budget: most tokens of a batch, padding included.
        world: fewest items of a batch, but for the last, which may be any rest.
        verb: what cannot be done with fewer items, for the message.

    Raises:
        ConfigError: there are fewer items than `world`, or the budget does not hold so many of the longest.
    """
    if len(lengths) < world:
        raise ConfigError(f"{len(lengths)} sequences cannot be {verb} trainer.devices={world}: use fewer devices.")
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
    return borders


class TokenBatches(EpochBatches):
    """Shuffled global batches of at most `budget` tokens; of each, rank r takes every world-th item from r on.

    The global batches are the same on any number of devices, and the ranks' shares of one differ by an item at most.
    Every item is visited once an epoch, but for a rest of the shortest, fewer than there are devices, that cannot be
    shared; on one device there is none.

    Args:
        lengths: tokens of each item.
        budget: most tokens of a global batch: its items times its longest.
        seed: as in `EpochBatches`, with `rank`, `world` and `frozen`.

    Raises:
        ConfigError: the budget does not hold one of the longest items on each device, or there are too few items.
    """

    def __init__(
        self, lengths: Lengths, budget: int, seed: int, *, rank: int = 0, world: int = 1, frozen: bool = False
    ) -> None:
        super().__init__(seed, rank=rank, world=world, frozen=frozen)
        borders = cut_batches(-np.sort(-lengths), budget, world, "shared by")
        self.lengths, self.borders = lengths, borders[:-1] if borders[-1] - borders[-2] < world else borders

    def __len__(self) -> int:
        return len(self.borders) - 1

    def plan(self, generator: np.random.Generator) -> Iterator[Int64[np.ndarray, " items"]]:
        """Sort the shuffled items, and cut them."""
        shuffled = generator.permutation(len(self.lengths))
        items = shuffled[np.argsort(-self.lengths[shuffled], kind="stable")]
        for batch in generator.permutation(len(self)).tolist():
            yield items[self.borders[batch] + self.rank : self.borders[batch + 1] : self.world]


def token_evaluation_batches(lengths: Lengths, budget: int, *, rank: int = 0, world: int = 1) -> list[list[int]]:
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
    items = np.argsort(-lengths, kind="stable")
    borders = cut_batches(lengths[items], budget, world, "evaluated on")
    if borders[-1] - borders[-2] < world:
        lent = borders[-1] - world
        borders[-2:-1] = [lent] if lent - borders[-3] >= world else []
    # Whoever reads the first batches alone should not meet the longest items alone.
    shuffled = np.random.default_rng(0).permutation(len(borders) - 1).tolist()
    return [items[borders[batch] + rank : borders[batch + 1] : world].tolist() for batch in shuffled]
