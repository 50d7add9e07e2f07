"""Batches whose order depends only on (seed, epoch), not on workers, devices or global random state."""

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler

from xformer.data.sampling.curriculum import ShorterItems
from xformer.data.sampling.order import Order
from xformer.errors import ConfigError


class EpochBatches(Sampler[list[int]]):
    """Base class of training batches: this rank's share of each global batch, drawn anew in every epoch.

    Set `epoch` and `start` to continue a run in the middle of an epoch: iteration yields the batches from `start` on.
    `len` stays the whole epoch's, because Lightning adds the batches already consumed when it looks for the last one.

    Args:
        seed: with the epoch, all that the order depends on.
        rank: this process's place among `world`.
        world: number of processes that share each batch.
        frozen: repeat epoch 0's order for ever, for `Trainer(overfit_batches=...)`.
    """

    def __init__(self, seed: int, *, rank: int = 0, world: int = 1, frozen: bool = False) -> None:
        self.seed, self.rank, self.world, self.frozen = seed, rank, world, frozen
        self.epoch = self.start = 0
        self.curriculum: ShorterItems | None = None

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches in a whole epoch."""

    @abstractmethod
    def plan(self, generator: np.random.Generator) -> Iterator[Int64[np.ndarray, " items"]]:
        """This rank's items of each batch of an epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        start = self.start
        for batch, items in enumerate(self.plan(np.random.default_rng((self.seed, 0 if self.frozen else self.epoch)))):
            if batch >= start:
                yield (items if self.curriculum is None else self.curriculum(items, self.epoch, batch)).tolist()

    @property
    def sampler(self) -> "EpochBatches":
        """Itself: Lightning looks for `set_epoch` on a batch sampler's `sampler`, not on the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch; `start` is kept only for the epoch for which it was set."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0


class TrainingBatches(EpochBatches):
    """Global batches of equally many items, of which each rank takes its contiguous share; a last rest is dropped.

    Args:
        order: what an epoch visits.
        batch_size: items per global batch.
        seed: as in `EpochBatches`, with `rank`, `world` and `frozen`.

    Raises:
        ConfigError: `batch_size` cannot be shared equally, or is larger than an epoch.
    """

    def __init__(
        self, order: Order, batch_size: int, seed: int, *, rank: int = 0, world: int = 1, frozen: bool = False
    ) -> None:
        super().__init__(seed, rank=rank, world=world, frozen=frozen)
        self.order, self.batch_size, self.share = order, batch_size, share_of(batch_size, world)
        if batch_size > len(order):
            raise ConfigError(
                f"data.loader.batch_size={batch_size} is more than the {len(order)} sequences of a training epoch: "
                "choose a smaller one or more data."
            )

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def plan(self, generator: np.random.Generator) -> Iterator[Int64[np.ndarray, " items"]]:
        """Cut the order into batches, and those into shares."""
        items = self.order(generator)
        for first in range(self.rank * self.share, len(self) * self.batch_size, self.batch_size):
            yield items[first : first + self.share]


def evaluation_batches(size: int, batch_size: int, *, rank: int = 0, world: int = 1) -> list[list[int]]:
    """Every item once in a fixed order: rank r takes every world-th, and every rank runs equally many batches.

    The count is equal and the sizes nearly so, because a rank that ran one batch more than the others would wait for
    them for ever in a collective operation.

    Args:
        size: number of items.
        batch_size: items per global batch.
        rank: this process's place among `world`.
        world: number of processes that share the items.

    Raises:
        ConfigError: `batch_size` cannot be shared equally, or there are fewer items than processes.
    """
    if size < world:
        raise ConfigError(f"{size} sequences cannot be evaluated on trainer.devices={world}: use fewer devices.")
    largest = -(-size // world)
    # A share of one item per batch may leave a rank without its last batch: then its batches hold two.
    count = min(-(-largest // share_of(batch_size, world)), size // world)
    return [batch.tolist() for batch in np.array_split(np.arange(rank, size, world), count)]


def share_of(batch_size: int, world: int) -> int:
    """The number of items of a global batch for each of `world` processes.

    Raises:
        ConfigError: the batch is not a positive multiple of the number of processes.
    """
    if batch_size < 1 or batch_size % world:
        raise ConfigError(
            f"data.loader.batch_size={batch_size} counts sequences over all devices, so it must be a positive multiple "
            f"of the {world} in use."
        )
    return batch_size // world
