"""Handwritten digits as sequences of 64 grey levels: real data that every scikit-learn ships."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Interval
from jaxtyping import Int64

from xformer.core.digest import digest
from xformer.data.base import DataModule
from xformer.data.batch import ClassificationBatch
from xformer.data.facts import Facts
from xformer.data.floors import majority
from xformer.data.sources.hold_out import check_fractions, deal_images


class Images:
    """Images as rows of pixels, with their labels.

    Args:
        tokens: Grey levels, row by row.
        labels: The digits.
    """

    def __init__(self, tokens: Int64[np.ndarray, "images pixels"], labels: Int64[np.ndarray, " images"]) -> None:
        self.tokens, self.labels = tokens, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> ClassificationBatch:
        rows = np.asarray(indices)
        return ClassificationBatch(torch.from_numpy(self.tokens[rows]), None, torch.from_numpy(self.labels[rows]))


class Digits(DataModule):
    """scikit-learn's 1,797 8 x 8 images, one token per pixel and one of 17 grey levels per token.

    Args:
        seed: Order of the training batches.
        cache: Unused: the images come with scikit-learn.
        val_fraction: Share of the images to validate on.
        test_fraction: Share of the images to test on.
        split_seed: Decides which image goes where.
        batch_size: Sequences per step over all devices.
        num_workers: Processes that fetch ahead.

    Raises:
        ConfigError: If the fractions leave a split empty.
    """

    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = False

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        val_fraction: Annotated[float, Interval(ge=0, lt=1)],
        test_fraction: Annotated[float, Interval(ge=0, lt=1)],
        split_seed: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        num_workers: Annotated[int, Interval(ge=0, le=1024)],
    ) -> None:
        super().__init__(seed, cache, batch_size=batch_size, num_workers=num_workers)
        check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        self.fractions = {"test": test_fraction, "val": val_fraction}
        self.split_seed = split_seed

    def load(self) -> None:
        """Read the images and split them.

        Raises:
            ConfigError: If a fraction is too small for a single image.
        """
        from sklearn.datasets import load_digits

        pixels, digits = load_digits(return_X_y=True)
        tokens, labels = pixels.astype(np.int64), digits.astype(np.int64)
        rows = deal_images(len(labels), self.fractions, self.split_seed)
        self.splits = {name: Images(tokens[rows[name]], labels[rows[name]]) for name in ("train", "val", "test")}
        counts = np.bincount(labels[rows["train"]], minlength=10).tolist()
        self.facts = Facts(vocabulary=17, length=tokens.shape[1], classes=10, class_counts=counts)
        self.floors = {"majority class": majority(labels[rows["train"]], labels[rows["test"]])}
        self.fingerprint = digest(
            tokens.tolist(), labels.tolist(), {name: part.tolist() for name, part in rows.items()}
        )

    def describe(self) -> str:
        """Sizes of the splits."""
        sizes = "/".join(f"{len(split):,}" for split in self.splits.values())
        return f"Digits: {sizes} images, {self.facts.length} pixels, {self.facts.vocabulary} grey levels"
