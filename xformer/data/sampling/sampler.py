"""Batch samplers whose order depends only on (seed, epoch), not on workers, devices or global random state."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler

from xformer.errors import ConfigError

_DRAWS = 2**31


@runtime_checkable
class Order(Protocol):
    """Protocol of an order of items in an epoch, drawn with a generator that the sampler seeds."""

    def __len__(self) -> int:
        """Items in an epoch."""

    def __call__(self, generator: np.random.Generator) -> Int64[np.ndarray, " items"]:
        """Draw one epoch's items, in order."""


class Permutation:
    """Every item once, shuffled.

    Args:
        size: Number of items.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __call__(self, generator: np.random.Generator) -> Int64[np.ndarray, " items"]:
        """Draw a permutation of `range(size)`."""
        return generator.permutation(self.size).astype(np.int64)


class RandomDraws:
    """Items drawn with replacement: random offsets into a text.

    Args:
        size: Number of items to draw from.
        count: Number of draws in an epoch.
    """

    def __init__(self, size: int, count: int) -> None:
        self.size, self.count = size, count

    def __len__(self) -> int:
        return self.count

    def __call__(self, generator: np.random.Generator) -> Int64[np.ndarray, " items"]:
        """Draw `count` items from `range(size)`."""
        return generator.integers(0, self.size, self.count, dtype=np.int64)


class Fresh:
    """New items in every epoch: all shapes once, shuffled, each with a new random draw.

    Args:
        size: items in an epoch.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __call__(self, generator: np.random.Generator) -> Int64[np.ndarray, " items"]:
        """Draw item numbers, all beyond those of the fixed items."""
        shapes = generator.permutation(self.size).astype(np.int64)
        return generator.integers(1, _DRAWS, self.size) * self.size + shapes


class EpochBatches(Sampler[list[int]]):
    """Base class of batch samplers whose order depends on the epoch.

    Set `epoch` and `start` to continue a run in the middle of an epoch: iteration yields the batches from `start` on.
    `len` stays the whole epoch's, because Lightning adds the batches already consumed when it looks for the last one.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.start = 0

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches in a whole epoch."""

    @property
    def sampler(self) -> "EpochBatches":
        """Itself: Lightning looks for `set_epoch` on a batch sampler's `sampler`, not on the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch; `start` is kept only for the epoch for which it was set."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0


class TrainingBatches(EpochBatches):
    """Shuffled global batches, of which each rank takes its contiguous share; a last incomplete batch is dropped.

    Args:
        order: What an epoch visits.
        batch_size: Items per global batch.
        seed: With the epoch, all that the order depends on.
        rank: This process's place among `world`.
        world: Number of processes that share each batch.
        frozen: Repeat epoch 0's order for ever, for `Trainer(overfit_batches=...)`.

    Raises:
        ConfigError: If `batch_size` cannot be shared equally, or is larger than an epoch.
    """

    def __init__(
        self, order: Order, batch_size: int, seed: int, *, rank: int = 0, world: int = 1, frozen: bool = False
    ) -> None:
        super().__init__()
        self.share = share_of(batch_size, world)
        if batch_size > len(order):
            raise ConfigError(
                f"data.loader.batch_size={batch_size} is more than the {len(order)} sequences of a training epoch: "
                "choose a smaller one or more data."
            )
        self.order, self.batch_size, self.seed, self.rank, self.frozen = order, batch_size, seed, rank, frozen

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        items = self.order(np.random.default_rng((self.seed, 0 if self.frozen else self.epoch)))
        for batch in range(self.start, len(self)):
            first = batch * self.batch_size + self.rank * self.share
            yield items[first : first + self.share].tolist()


class EvaluationBatches(Sampler[list[int]]):
    """Every item once in a fixed order: rank r takes every world-th, and every rank runs equally many batches.

    The count is equal and the sizes nearly so, because a rank that ran one batch more than the others would wait for
    them for ever in a collective operation.

    Args:
        size: Number of items.
        batch_size: Items per global batch.
        rank: This process's place among `world`.
        world: Number of processes that share the items.

    Raises:
        ConfigError: If `batch_size` cannot be shared equally, or there are fewer items than processes.
    """

    def __init__(self, size: int, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        if size < world:
            raise ConfigError(f"{size} sequences cannot be evaluated on trainer.devices={world}: use fewer devices.")
        self.size, self.rank, self.world = size, rank, world
        largest = -(-size // world)
        # A share of one item per batch may leave a rank without its last batch: then its batches hold two.
        self.count = min(-(-largest // share_of(batch_size, world)), size // world)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        for batch in np.array_split(np.arange(self.rank, self.size, self.world), self.count):
            yield batch.tolist()


def share_of(batch_size: int, world: int) -> int:
    """The number of items of a global batch for each of `world` processes.

    Raises:
        ConfigError: If the batch is not a positive multiple of the number of processes.
    """
    if batch_size < 1 or batch_size % world:
        raise ConfigError(
            f"data.loader.batch_size={batch_size} counts sequences over all devices, so it must be a positive multiple "
            f"of the {world} in use."
        )
    return batch_size // world
