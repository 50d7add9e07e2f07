"""The seam of data: a module that yields typed batches in an order fixed by the seed and reports on itself."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Sampler

from xformer.data.facts import Facts
from xformer.data.sampling.buckets import TokenBatches, TokenEvaluationBatches
from xformer.data.sampling.curriculum import CurriculumBatches, Pace
from xformer.data.sampling.loader import Loader
from xformer.data.sampling.sampler import EpochBatches, EvaluationBatches, Fresh, Order, Permutation, TrainingBatches
from xformer.errors import ConfigError, DataError

FACTS_FILE = "data.json"


@runtime_checkable
class Split(Protocol):
    """Items that are read a whole batch at a time."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return one typed batch."""


class DataModule(LightningDataModule, ABC):
    """Data for a task. Subclasses write `prepare_data`, `load` and `describe`.

    After `prepare_data()` and `setup(stage)` the attributes below hold; use `Trainer(use_distributed_sampler=False)`.

    Args:
        seed: Decides the order of training batches and nothing else.
        cache: Directory for generated and tokenised data.
        batch_size: Sequences per step over all devices, so that their number does not change the experiment.
        num_workers: Processes that fetch batches ahead; 0 fetches in the training process.
        tokens_per_batch: Most tokens per step over all devices, padding included, in place of `batch_size`: batches
            are then of similar length. For splits with `lengths`, an array of each item's tokens.

    Attributes:
        facts: What a task has to know.
        floors: What trivial predictors reach, by name, in the metric that `floor_of` names; empty where there are none.
        fingerprint: Stable hash of the very data and tokenizer.
        splits: The items of "train", "val" and, unless there are none, "test"; "test@64" for a further length of 64.
        pace: How a curriculum grows; None where all items are trained on from the first step.
    """

    yields: ClassVar[type]
    pads: ClassVar[bool]
    floor_of: ClassVar[str] = "test/accuracy"

    facts: Facts
    floors: dict[str, float]
    fingerprint: str
    splits: dict[str, Split]
    pace: Pace | None = None

    def __init__(
        self, seed: int, cache: Path, *, batch_size: int, num_workers: int, tokens_per_batch: int | None = None
    ) -> None:
        super().__init__()
        self.seed, self.cache, self.batch_size, self.num_workers = seed, Path(cache), batch_size, num_workers
        self.tokens_per_batch = tokens_per_batch

    @abstractmethod
    def load(self) -> None:
        """Fill every attribute from what `prepare_data` left behind."""

    @abstractmethod
    def describe(self) -> str:
        """One line for the run's header."""

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of what a person typed.

        Raises:
            DataError: these data have no form that can be typed, or this is not it.
        """
        raise DataError(f"{type(self).__name__} has no sequences that can be typed.")

    def decode(self, tokens: Sequence[int]) -> str:
        """A sequence as a person reads it, up to its end token, without the tokens that are not text."""
        return " ".join(map(str, tokens))

    def save(self, directory: Path) -> None:
        """Leave in a run directory what `restore` needs to read and write sequences without the data."""
        (directory / FACTS_FILE).write_text(json.dumps(self.facts.as_dict()), encoding="utf-8")

    def restore(self, directory: Path) -> None:
        """Take over what `save` left: `facts`, `encode` and `decode` then work, without any data.

        Raises:
            DataError: there is nothing of the kind.
        """
        try:
            self.facts = Facts.from_dict(json.loads((directory / FACTS_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{directory / FACTS_FILE} cannot be read ({error}): train the run again.") from error

    def setup(self, stage: str) -> None:
        """Load, once for all stages."""
        if not hasattr(self, "splits"):
            self.load()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """A batch on the device, which is not waited for where the batch is in pinned memory."""
        return type(batch)(*(x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in batch))

    def order(self) -> Order:
        """What a training epoch visits: by default each item once."""
        return Permutation(len(self.splits["train"]))

    def train_dataloader(self) -> Loader:
        """Shuffled batches of this rank.

        Raises:
            ConfigError: If `batch_size` or `tokens_per_batch` does not suit the devices or the data, or a curriculum
                does not suit the data or their order.
        """
        rank, world = self._rank_and_world_size()
        frozen = getattr(self.trainer, "overfit_batches", 0) > 0
        batches: EpochBatches
        if self.tokens_per_batch is None:
            batches = TrainingBatches(self.order(), self.batch_size, self.seed, rank=rank, world=world, frozen=frozen)
        else:
            lengths = self._lengths("train")
            batches = TokenBatches(lengths, self.tokens_per_batch, self.seed, rank=rank, world=world, frozen=frozen)
        paced = batches if self.pace is None else self._paced(batches, self.pace)
        return self._loader(self.splits["train"], paced)

    def _loader(self, items: Split, batches: Sampler[list[int]]) -> Loader:
        cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return Loader(items, batches, seed=self.seed, num_workers=self.num_workers, pin_memory=cuda)

    def _paced(self, batches: EpochBatches, pace: Pace) -> CurriculumBatches:
        limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        # As Lightning counts them; `overfit_batches` sets the same limit.
        trained = min(len(batches), limit) if isinstance(limit, int) else int(len(batches) * limit)
        paced = CurriculumBatches(batches, self.splits["train"], pace, trained)
        if not isinstance(self.order(), Permutation | Fresh):
            raise ConfigError(
                "callbacks=curriculum replaces items by shorter ones and needs each to be visited once an epoch, which "
                "data.balanced=true changes: leave one of them out."
            )
        return paced

    def val_dataloader(self) -> Loader:
        """This rank's share of the validation items, in a fixed order."""
        return self._evaluation("val")

    def test_dataloader(self) -> Loader | list[Loader]:
        """This rank's share of the test items, also at further lengths; an empty list where there is no test split."""
        if "test" not in self.splits:
            return []
        further = [self._evaluation(f"test@{length}") for length in self.facts.test_lengths]
        return [self._evaluation("test"), *further] if further else self._evaluation("test")

    def _evaluation(self, split: str) -> Loader:
        items = self.splits[split]
        rank, world = self._rank_and_world_size()
        batches: EvaluationBatches | TokenEvaluationBatches
        if self.tokens_per_batch is None:
            batches = EvaluationBatches(len(items), self.batch_size, rank=rank, world=world)
        else:
            batches = TokenEvaluationBatches(self._lengths(split), self.tokens_per_batch, rank=rank, world=world)
        return self._loader(items, batches)

    def _lengths(self, split: str) -> Int64[np.ndarray, " items"]:
        lengths = getattr(self.splits[split], "lengths", None)
        if lengths is None or not isinstance(self.order(), Permutation):
            raise ConfigError(
                f"data.tokens_per_batch={self.tokens_per_batch} needs sequences of different lengths, each visited "
                f"once an epoch, and {type(self).__name__} has none as it is set: leave it null."
            )
        return np.asarray(lengths, dtype=np.int64)

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


class CachedData(DataModule):
    """Data that are read or generated once and kept. Subclasses write `prepare`, `load` and `describe`."""

    _entry: Path | None = None

    @abstractmethod
    def prepare(self) -> Path:
        """The entry of the cache that `load` reads, built unless an intact one is there."""

    def prepare_data(self) -> None:
        """Build what is kept unless it is there; what is wrong with a source is said here."""
        self._entry = self.prepare()

    @property
    def entry(self) -> Path:
        """The entry that was prepared, by this process or another."""
        if self._entry is None:
            self._entry = self.prepare()
        return self._entry
