"""Configuration blocks that several datasets share, composed in YAML as nested nodes.

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
    """Settings of a run that apply to any data.

    Attributes:
        seed: of the order of the training batches, and of nothing else.
        cache: directory for generated and tokenised data.
    """

    seed: int
    cache: Path


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Settings of data loading: batches and workers.

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
    """Settings of held-out splits: the fractions of training data for splits that a source lacks.

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
                "leave training data: their sum must be below 1."
            )

    @property
    def fractions(self) -> dict[str, float]:
        """The fraction of each split."""
        return {"val": self.val_fraction, "test": self.test_fraction}


@dataclass(frozen=True, kw_only=True)
class RandomSplitConfig(SplitConfig):
    """Settings of held-out splits that are drawn at random.

    Attributes:
        seed: decides which items.
    """

    seed: Annotated[int, Ge(0)]


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of generated data: the number of items in each split, and the seed.

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
        """The number of items in each split."""
        return {"train": self.train_size, "val": self.val_size, "test": self.test_size}


@dataclass(frozen=True, kw_only=True)
class FreshGenerationConfig(GenerationConfig):
    """Settings of generated data that may have new training items in every epoch.

    Attributes:
        fresh: whether it has; they then also depend on the run's seed and the epoch, like the order.
    """

    fresh: bool
