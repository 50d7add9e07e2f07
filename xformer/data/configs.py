"""What the options of several datasets have in common: a block each, composed in YAML as a nested node.

    loader: {batch_size: 32, num_workers: 0}

A dataset's own parameters stand beside the blocks, so that a key has one name and one meaning whatever the data are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Interval

from xformer.errors import ConfigError


@dataclass(frozen=True)
class DataContext:
    """What a run decides for its data, whichever they are.

    Attributes:
        seed: of the order of the training batches, and of nothing else.
        cache: directory for generated and tokenised data.
    """

    seed: int
    cache: Path


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How items are put into batches and fetched.

    Attributes:
        batch_size: sequences per step over all devices, so that their number does not change the experiment.
        num_workers: processes that fetch batches ahead; 0 fetches in the training process.
        tokens_per_batch: most tokens per step over all devices, padding included, in place of `batch_size`: batches
            are then of sequences of similar length. For data whose sequences differ in length.
    """

    batch_size: Annotated[int, Ge(1)]
    num_workers: Annotated[int, Interval(ge=0, le=1024)]
    tokens_per_batch: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """What is held out of the training data for the splits that a source does not bring itself.

    Attributes:
        val_fraction: share to validate on.
        test_fraction: share to test on; 0 for no test.

    Raises:
        ConfigError: the shares leave nothing to train on.
    """

    val_fraction: Annotated[float, Interval(ge=0, lt=1)]
    test_fraction: Annotated[float, Interval(ge=0, lt=1)]

    def __post_init__(self) -> None:
        if self.val_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"data.split.val_fraction={self.val_fraction} and data.split.test_fraction={self.test_fraction} must "
                "leave something to train on: together they must be below 1."
            )

    @property
    def fractions(self) -> dict[str, float]:
        """The share of each split."""
        return {"val": self.val_fraction, "test": self.test_fraction}


@dataclass(frozen=True, kw_only=True)
class RandomSplitConfig(SplitConfig):
    """A random part of the items, held out of the training data.

    Attributes:
        seed: decides which items.
    """

    seed: Annotated[int, Ge(0)]


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How many items a generator makes, and from what seed.

    Attributes:
        train_size: training items.
        val_size: validation items.
        test_size: test items.
        seed: decides the items, so that every run's own seed meets the same ones.
    """

    train_size: Annotated[int, Ge(1)]
    val_size: Annotated[int, Ge(1)]
    test_size: Annotated[int, Ge(1)]
    seed: Annotated[int, Ge(0)]

    @property
    def sizes(self) -> dict[str, int]:
        """The items of each split."""
        return {"train": self.train_size, "val": self.val_size, "test": self.test_size}


@dataclass(frozen=True, kw_only=True)
class FreshGenerationConfig(GenerationConfig):
    """Items of which every epoch may have new ones to train on.

    Attributes:
        fresh: whether it has; they then also depend on the run's seed and the epoch, like the order.
    """

    fresh: bool
