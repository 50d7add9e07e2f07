"""The base class of data modules, which yield typed batches in an order fixed by the seed."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from lightning.pytorch import LightningDataModule
from torch import Tensor

from xformer.data.configs import DataContext, LoaderConfig
from xformer.data.sampling.buckets import TokenBatches, token_evaluation_batches
from xformer.data.sampling.curriculum import Pace, ShorterItems
from xformer.data.sampling.loader import Loader
from xformer.data.sampling.order import Order, Permutation
from xformer.data.sampling.sampler import EpochBatches, TrainingBatches, evaluation_batches
from xformer.data.spec import DataSpec
from xformer.data.splits import Split
from xformer.errors import ConfigError, DataError

SPEC_FILE = "data.json"


@dataclass(eq=False, repr=False)
class DataModule(LightningDataModule, ABC):
    """A data module for a task. Subclasses implement `prepare_data`, `load` and `describe`.

    Their configuration is their fields, and `__post_init__` checks it. After `prepare_data()` and `setup(stage)` the
    attributes below the loader hold; use `Trainer(use_distributed_sampler=False)`.
    """

    yields: ClassVar[type]
    pads: ClassVar[bool]
    baseline_metric: ClassVar[str] = "test/accuracy"

    context: DataContext  # seed of the order of the training batches, and where prepared data are kept
    _: KW_ONLY
    loader: LoaderConfig  # size of the batches, and who fetches them
    spec: DataSpec = field(init=False)  # sizes and ids that a model is built for
    # the scores of trivial predictors, by name, in the metric that `baseline_metric` names; empty where there are none
    trivial_baselines: dict[str, float] = field(init=False)
    fingerprint: str = field(init=False)  # stable hash of the very data and tokenizer
    # the items of "train", "val" and, unless there are none, "test"; "test@64" for a further length of 64
    splits: Mapping[str, Split] = field(init=False)
    # how a curriculum grows; None where all items are trained on from the first step
    pace: Pace | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__init__()

    @abstractmethod
    def load(self) -> None:
        """Load the prepared data and set all attributes."""

    @abstractmethod
    def describe(self) -> str:
        """Describe the data in one line, for the run's header."""

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Encode typed text as ids.

        Raises:
            DataError: these data have no form that can be typed, or this is not it.
        """
        raise DataError(f"{type(self).__name__} does not accept typed input: its sequences are not text.")

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode ids as text, up to the end token, without tokens that are not text."""
        return " ".join(map(str, tokens))

    def save(self, directory: Path) -> None:
        """Save to a run directory what `restore` needs to encode and decode sequences without the data."""
        (directory / SPEC_FILE).write_text(json.dumps(self.spec.as_dict()), encoding="utf-8")

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote: `spec`, `encode` and `decode` then work, without any data.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            self.spec = DataSpec.from_dict(json.loads((directory / SPEC_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{directory / SPEC_FILE} cannot be read ({error}): train the run again.") from error

    def setup(self, stage: str) -> None:
        """Load the data, once for all stages."""
        if not hasattr(self, "splits"):
            self.load()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device; without waiting if it is in pinned memory."""
        return type(batch)(*(x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in batch))

    def order(self) -> Order:
        """The order of items in a training epoch: by default, each item once, shuffled."""
        return Permutation(len(self.splits["train"]))

    def split_sizes(self) -> str:
        """The numbers of items in the splits, as `describe` says them."""
        return "/".join(f"{len(split):,}" for name, split in self.splits.items() if "@" not in name)

    def train_dataloader(self) -> Loader:
        """Shuffled batches of this rank.

        Raises:
            ConfigError: `batch_size` or `tokens_per_batch` does not suit the devices or the data, or a curriculum does
                not suit the data or their order.
        """
        order, seed, budget = self.order(), self.context.seed, self.loader.tokens_per_batch
        rank, world = self._rank_and_world_size()
        frozen = getattr(self.trainer, "overfit_batches", 0) > 0  # which Lightning does not declare
        batches: EpochBatches
        if budget is None:
            batches = TrainingBatches(order, self.loader.batch_size, seed, rank=rank, world=world, frozen=frozen)
        else:
            batches = TokenBatches(self._lengths("train"), budget, seed, rank=rank, world=world, frozen=frozen)
        if self.pace is not None:
            limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
            # As Lightning counts them; `overfit_batches` sets the same limit.
            trained = min(len(batches), limit) if isinstance(limit, int) else int(len(batches) * limit)
            batches.curriculum = ShorterItems(self.splits["train"].lengths, self.pace, trained)
            if not isinstance(order, Permutation):
                raise ConfigError(
                    "callbacks=curriculum replaces items by shorter ones and needs each to be visited once an epoch, "
                    "which data.balanced=true does not do: use one of the two."
                )
        return self._loader(self.splits["train"], batches)

    def _loader(self, items: Split, batches: Iterable[list[int]]) -> Loader:
        cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        workers = self.loader.num_workers
        return Loader(items, batches, seed=self.context.seed, num_workers=workers, pin_memory=cuda)

    def val_dataloader(self) -> Loader:
        """This rank's share of the validation items, in a fixed order."""
        return self._evaluation("val")

    def test_dataloader(self) -> Loader | list[Loader]:
        """This rank's share of the test items, also at further lengths; an empty list where there is no test split."""
        loaders = [self._evaluation(name) for name in self.splits if name.startswith("test")]
        return loaders[0] if len(loaders) == 1 else loaders

    def _evaluation(self, split: str) -> Loader:
        items, budget, (rank, world) = self.splits[split], self.loader.tokens_per_batch, self._rank_and_world_size()
        if budget is None:
            batches = evaluation_batches(len(items), self.loader.batch_size, rank=rank, world=world)
        else:
            batches = token_evaluation_batches(self._lengths(split), budget, rank=rank, world=world)
        return self._loader(items, batches)

    def _lengths(self, split: str) -> Int64[np.ndarray, " items"]:
        lengths = self.splits[split].lengths
        if lengths is None or type(self.order()) is not Permutation:
            raise ConfigError(
                f"data.loader.tokens_per_batch={self.loader.tokens_per_batch} needs sequences of different lengths, "
                f"each visited once an epoch, and {type(self).__name__} has none as it is set: leave it null."
            )
        return lengths

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


class CachedData(DataModule):
    """A data module with a cache on disk. Subclasses implement `prepare`, `load` and `describe`."""

    _entry: Path | None = None

    @abstractmethod
    def prepare(self) -> Path:
        """Return the cache entry that `load` reads, building it if there is no intact one."""

    def prepare_data(self) -> None:
        """Build the cache entry if needed; errors in a source are raised here."""
        self._entry = self.prepare()

    @property
    def entry(self) -> Path:
        """The prepared cache entry, built by this process or another."""
        if self._entry is None:
            self._entry = self.prepare()
        return self._entry
