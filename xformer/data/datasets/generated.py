"""Data generated on access, each item from its own random generator, so that every step can have new ones."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from xformer.core.digest import digest, stable_name_of
from xformer.data.base import DataModule
from xformer.data.configs import FreshGenerationConfig
from xformer.data.sampling.order import Fresh, Order
from xformer.data.splits import Split
from xformer.errors import DataError


@dataclass
class Items(Split):
    """Items generated on access: item i depends on the key and on i alone; i grows where an epoch brings new ones."""

    size: int  # items in an epoch
    key: tuple[int, ...]  # of the generators; another key, other items
    # makes the arrays of one item, such as its tokens and its label
    make: Callable[[np.random.Generator], tuple[Any, ...]]
    collate: Callable[..., Any]  # puts these arrays, stacked over the items, into one typed batch

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, indices: Sequence[int]) -> Any:
        rows = [self.make(np.random.default_rng((*self.key, index))) for index in indices]
        stacked: list[Tensor] = [torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)]
        return self.collate(*stacked)


@dataclass(kw_only=True, eq=False, repr=False)
class Generated(DataModule):
    """The base class of data whose items are generated on access.

    Subclasses write `items` and `describe`, set `spec` and `trivial_baselines` in `load`, and state a `stable_name`, by
    which the fingerprint knows them, whatever the class is called.

    The items depend on `generation.seed` alone, except that `fresh` training items also depend on the run's seed and
    the epoch, like the order.
    """

    stable_name: ClassVar[str]
    pads: ClassVar[bool] = False

    generation: FreshGenerationConfig  # how many sequences there are, and of what seed

    @abstractmethod
    def items(self, size: int, key: tuple[int, ...]) -> Items:
        """Create the items of one split."""

    def load(self) -> None:
        """Create the splits; subclasses add their details to the specification."""
        sizes, seed = self.generation.sizes, self.generation.seed
        self.splits = {name: self.items(size, (seed, number)) for number, (name, size) in enumerate(sizes.items())}
        # What a generator makes of a configuration shows in a few items, of which this is the hash.
        shown = [
            [None if field is None else field.tolist() for field in part.__getitems__(range(min(len(part), 8)))]
            for part in self.splits.values()
        ]
        self.fingerprint = digest(stable_name_of(type(self)), sizes, self.generation.fresh, seed, shown)

    def order(self) -> Order:
        """Each item once; with fresh generation, new ones in every epoch."""
        return Fresh(self.generation.train_size) if self.generation.fresh else super().order()

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
        """The numbers of sequences in the splits, and whether they are new in every epoch."""
        return f"{super().split_sizes()} sequences" + (", new ones in every epoch," if self.generation.fresh else "")
