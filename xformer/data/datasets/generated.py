"""Data generated on access, each item from its own random generator, so that every step can have new ones."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Int64

from xformer.core.digest import digest, stable_name_of
from xformer.data.base import DataModule
from xformer.data.configs import DataContext, FreshGenerationConfig, LoaderConfig
from xformer.data.sampling.sampler import Fresh, Order
from xformer.data.split import Split
from xformer.errors import DataError

Row = TypeVar("Row")


class Items(Split, Generic[Row]):
    """Items generated on access: item i depends only on the key and on i.

    There are `size` of them in an epoch. Where an epoch brings new ones, i grows beyond `size`: then item i has the
    shape of item `i % size`, such as its length, and a content of its own.

    Args:
        size: items in an epoch.
        key: of the generators; another key, other items.
        make: makes one item, from the number of its shape (below `size`) and a generator.
        collate: puts items into one typed batch.
    """

    def __init__(
        self,
        size: int,
        key: tuple[int, ...],
        make: Callable[[int, np.random.Generator], Row],
        collate: Callable[[list[Row]], Any],
    ) -> None:
        self.size, self.key, self.make, self.collate = size, key, make, collate

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return self.collate([self.make(i % self.size, np.random.default_rng((*self.key, i))) for i in indices])


class Generated(DataModule):
    """The base class of data whose items are generated on access.

    Subclasses write `items` and `describe`, set `spec` and `trivial_baselines` in `load`, and state a `stable_name`, by
    which the fingerprint knows them, whatever the class is called.

    The items depend on `generation.seed` alone, except that `fresh` training items also depend on the run's seed and
    the epoch, like the order.

    Args:
        context: seed of the order of the training batches; the cache is not used.
        generation: how many sequences there are, and of what seed.
        loader: size of the batches, and who fetches them.
    """

    stable_name: ClassVar[str]

    def __init__(self, context: DataContext, *, generation: FreshGenerationConfig, loader: LoaderConfig) -> None:
        super().__init__(context, loader=loader)
        self.generation, self.sizes = generation, generation.sizes

    @abstractmethod
    def items(self, size: int, key: tuple[int, ...]) -> Items[Any]:
        """Create the items of one split."""

    def load(self) -> None:
        """Create the splits; subclasses add their details to the specification."""
        parts = {
            name: self.items(size, (self.generation.seed, number))
            for number, (name, size) in enumerate(self.sizes.items())
        }
        self.splits = {**parts}
        # What a generator makes of a configuration shows in a few items, of which this is the hash.
        shown = [
            [None if field is None else field.tolist() for field in part.__getitems__(range(min(len(part), 8)))]
            for part in parts.values()
        ]
        self.fingerprint = digest(
            stable_name_of(type(self)), self.sizes, self.generation.fresh, self.generation.seed, shown
        )

    def order(self) -> Order:
        """Each item once; with fresh generation, each shape once with new content."""
        return Fresh(self.sizes["train"]) if self.generation.fresh else super().order()

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Encode token numbers separated by blanks.

        Raises:
            DataError: something else is in the text.
        """
        words = text.split()
        if not words or not all(word.isdecimal() and int(word) < self.spec.vocabulary for word in words):
            raise DataError(
                f"{text!r} is not a valid sequence: use token numbers from 0 to {self.spec.vocabulary - 1} with "
                "blanks between."
            )
        return np.array([int(word) for word in words])

    def split_sizes(self) -> str:
        """Format the sizes of the splits."""
        sizes = "/".join(f"{size:,}" for size in self.sizes.values())
        return f"{sizes} sequences" + (", new ones in every epoch," if self.generation.fresh else "")
