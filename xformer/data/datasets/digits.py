"""Handwritten digits as sequences of 64 grey levels, from scikit-learn."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xformer.core.digest import digest
from xformer.data.base import DataModule
from xformer.data.batch import ClassificationBatch
from xformer.data.configs import RandomSplitConfig
from xformer.data.spec import DataSpec
from xformer.data.splits import PixelRows
from xformer.data.trivial_baselines import class_counts, majority


@dataclass(kw_only=True, eq=False, repr=False)
class Digits(DataModule):
    """scikit-learn's 1,797 8 x 8 images, one token per pixel and one of 17 grey levels per token."""

    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = False

    split: RandomSplitConfig  # what is held out to validate and to test on

    def load(self) -> None:
        """Read the images and split them.

        Raises:
            ConfigError: a fraction is too small for a single image.
        """
        from sklearn.datasets import load_digits

        pixels, digits = load_digits(return_X_y=True)
        labels = digits.astype(np.int64)
        # Test first: so were the first ones dealt.
        rows = self.split.deal(len(labels), (), "images", ("test", "val"))
        parts: dict[str, PixelRows] = {
            name: PixelRows(pixels[rows[name]].astype(np.uint8), (1, 8, 8), labels[rows[name]])
            for name in ("train", "val", "test")
            if name in rows
        }
        self.splits = parts
        self.spec = DataSpec(vocabulary=17, length=64, classes=10, class_counts=class_counts(parts["train"].labels, 10))
        self.trivial_baselines = majority(parts)
        self.fingerprint = digest(
            pixels.astype(int).tolist(), labels.tolist(), {name: part.tolist() for name, part in rows.items()}
        )

    def describe(self) -> str:
        """Sizes of the splits, and form of the images."""
        return f"Digits: {self.split_sizes()} images, {self.spec.length} pixels, {self.spec.vocabulary} grey levels"
