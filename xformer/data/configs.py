"""Configuration blocks that several datasets share, composed in YAML as nested nodes.

    loader: {batch_size: 32, num_workers: 0}

A dataset's own parameters stand beside the blocks, so that a key has one name and one meaning whatever the data are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval
from jaxtyping import Int64

from xformer.errors import ConfigError


@dataclass(frozen=True)
class DataContext:
    """Settings of a run that apply to any data."""

    seed: int  # of the order of the training batches, and of nothing else
    cache: Path  # directory for generated and tokenised data


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Settings of data loading: batches and workers."""

    # sequences per step over all devices, so that their number does not change the experiment
    batch_size: Annotated[int, Ge(1)]
    # processes that fetch batches ahead; 0 fetches in the training process
    num_workers: Annotated[int, Interval(ge=0, le=1024)]
    # most tokens per step over all devices, padding included, in place of `batch_size`: batches are then of sequences
    # of similar length. For data whose sequences differ in length.
    tokens_per_batch: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Settings of held-out splits: the fractions of training data for splits that a source lacks.

    Raises:
        ConfigError: the shares leave nothing to train on.
    """

    val_fraction: Annotated[float, Interval(ge=0, lt=1)]  # share to validate on
    test_fraction: Annotated[float, Interval(ge=0, lt=1)]  # share to test on; 0 for no test

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

    def missing(self, there: Collection[str]) -> list[str]:
        """The splits that a source lacks: of a test share of 0, no test is missing."""
        return [name for name, share in self.fractions.items() if name not in there and (name == "val" or share > 0)]


@dataclass(frozen=True, kw_only=True)
class RandomSplitConfig(SplitConfig):
    """Settings of held-out splits that are drawn at random."""

    seed: Annotated[int, Ge(0)]  # decides which items

    def deal(
        self, total: int, there: Collection[str], noun: str, order: Sequence[str] = ("val", "test")
    ) -> dict[str, Int64[np.ndarray, " rows"]]:
        """Shuffle the training items, and deal them over "train" and the splits that a source lacks.

        Args:
            total: number of items.
            there: the splits that the source has.
            noun: what the items are, for the message.
            order: in which the splits are dealt.

        Returns:
            The rows of each of these splits; nothing where the source lacks none.

        Raises:
            ConfigError: a split gets nothing.
        """
        missing = [name for name in order if name in self.missing(there)]
        if not missing:
            return {}
        ends = np.cumsum([round(total * self.fractions[name]) for name in missing])
        shuffled = np.random.default_rng(self.seed).permutation(total)
        dealt = dict(zip((*missing, "train"), np.split(shuffled, ends), strict=True))
        for name, rows in dealt.items():
            if not len(rows):
                asked = " and ".join(f"data.split.{name}_fraction={self.fractions[name]}" for name in missing)
                raise ConfigError(
                    f"{asked} of {total} {noun} leave none for {name}: choose other fractions, or a source with more "
                    f"{noun} or with splits of its own."
                )
        return dealt


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of generated data: the number of items in each split, and the seed."""

    train_size: Annotated[int, Ge(1)]
    val_size: Annotated[int, Ge(1)]
    test_size: Annotated[int, Ge(1)]
    seed: Annotated[int, Ge(0)]  # decides the items, so that every run's own seed meets the same ones

    @property
    def sizes(self) -> dict[str, int]:
        """The number of items in each split."""
        return {"train": self.train_size, "val": self.val_size, "test": self.test_size}


@dataclass(frozen=True, kw_only=True)
class FreshGenerationConfig(GenerationConfig):
    """Settings of generated data that may have new training items in every epoch."""

    fresh: bool  # whether it has; they then also depend on the run's seed and the epoch, like the order
