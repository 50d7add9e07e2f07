"""Items made when they are asked for, each from a generator of its own, so that there can be new ones at every step."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Int64

from xformer.core.digest import digest, stable_name_of
from xformer.data.base import DataModule
from xformer.data.sampling.sampler import Fresh, Order
from xformer.errors import DataError

Row = TypeVar("Row")


class Items(ABC, Generic[Row]):
    """Items that exist only while they are asked for: item i depends on the key and on i, and on nothing else.

    There are `size` of them in an epoch. Where an epoch brings new ones, i grows beyond `size`: then item i has the
    shape of item `i % size`, such as its length, and a content of its own.

    Args:
        size: items in an epoch.
        key: of the generators; another key, other items.
    """

    def __init__(self, size: int, key: tuple[int, ...]) -> None:
        self.size, self.key = size, key

    def __len__(self) -> int:
        return self.size

    @abstractmethod
    def row(self, shape: int, generator: np.random.Generator) -> Row:
        """Make one item, of the shape of item `shape` (below `size`)."""

    @abstractmethod
    def batch(self, rows: list[Row]) -> Any:
        """Put items into one typed batch."""

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return self.batch([self.row(i % self.size, np.random.default_rng((*self.key, i))) for i in indices])


class Generated(DataModule):
    """Data that `Items` make. Subclasses write `items` and `describe`, and set `facts` and `floors` in `load`.

    Each states a `stable_name`, by which its fingerprint knows it, whatever the class is called.

    The items depend on `generation_seed` alone, except that `fresh` training items also depend on `seed` and epoch,
    like the order.

    Args:
        seed: order of the training batches.
        cache: unused: items are made when they are asked for.
        train_size: training sequences in an epoch.
        val_size: number of validation sequences.
        test_size: number of test sequences.
        fresh: whether every epoch has new training sequences.
        generation_seed: decides the sequences.
        batch_size: sequences per step over all devices.
        num_workers: processes that fetch ahead.
    """

    stable_name: ClassVar[str]

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        train_size: int,
        val_size: int,
        test_size: int,
        fresh: bool,
        generation_seed: int,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__(seed, cache, batch_size=batch_size, num_workers=num_workers)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.fresh, self.generation_seed = fresh, generation_seed

    @abstractmethod
    def items(self, size: int, key: tuple[int, ...]) -> Items[Any]:
        """The items of one split."""

    def load(self) -> None:
        """Make the splits; subclasses add what they know."""
        parts = {
            name: self.items(size, (self.generation_seed, number))
            for number, (name, size) in enumerate(self.sizes.items())
        }
        self.splits = {**parts}
        # What a generator makes of a configuration shows in a few items, of which this is the hash.
        shown = [
            [None if field is None else field.tolist() for field in part.__getitems__(range(min(len(part), 8)))]
            for part in parts.values()
        ]
        self.fingerprint = digest(stable_name_of(type(self)), self.sizes, self.fresh, self.generation_seed, shown)

    def order(self) -> Order:
        """Each item once, or each shape once with a new content."""
        return Fresh(self.sizes["train"]) if self.fresh else super().order()

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids typed as numbers with blanks between.

        Raises:
            DataError: something else is in the text.
        """
        words = text.split()
        if not words or not all(word.isdecimal() and int(word) < self.facts.vocabulary for word in words):
            raise DataError(
                f"{text!r} is no sequence of these data: give token numbers from 0 to {self.facts.vocabulary - 1} with "
                "blanks between."
            )
        return np.array([int(word) for word in words])

    def split_sizes(self) -> str:
        """The sizes of the splits, for a person."""
        sizes = "/".join(f"{size:,}" for size in self.sizes.values())
        return f"{sizes} sequences" + (", new ones in every epoch," if self.fresh else "")
