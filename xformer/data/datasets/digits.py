"""Handwritten digits as sequences of 64 grey levels, from scikit-learn."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int64

from xformer.core.digest import digest
from xformer.data.base import DataModule
from xformer.data.batch import ClassificationBatch
from xformer.data.configs import DataContext, LoaderConfig, RandomSplitConfig
from xformer.data.sources.hold_out import deal_images
from xformer.data.spec import DataSpec
from xformer.data.split import Split
from xformer.data.trivial_baselines import majority


class Images(Split):
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
        context: Seed of the order of the training batches; the cache is not used.
        split: What is held out to validate and to test on.
        loader: Size of the batches, and who fetches them.
    """

    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = False

    def __init__(self, context: DataContext, *, split: RandomSplitConfig, loader: LoaderConfig) -> None:
        super().__init__(context, loader=loader)
        self.split = split

    def load(self) -> None:
        """Read the images and split them.

        Raises:
            ConfigError: If a fraction is too small for a single image.
        """
        from sklearn.datasets import load_digits

        pixels, digits = load_digits(return_X_y=True)
        tokens, labels = pixels.astype(np.int64), digits.astype(np.int64)
        rows = deal_images(len(labels), self.split.fractions, self.split.seed)
        self.splits = {name: Images(tokens[rows[name]], labels[rows[name]]) for name in ("train", "val", "test")}
        counts = np.bincount(labels[rows["train"]], minlength=10).tolist()
        self.spec = DataSpec(vocabulary=17, length=tokens.shape[1], classes=10, class_counts=counts)
        self.trivial_baselines = {"majority class": majority(labels[rows["train"]], labels[rows["test"]])}
        self.fingerprint = digest(
            tokens.tolist(), labels.tolist(), {name: part.tolist() for name, part in rows.items()}
        )

    def describe(self) -> str:
        """Describe the sizes of the splits."""
        sizes = "/".join(f"{len(split):,}" for split in self.splits.values())
        return f"Digits: {sizes} images, {self.spec.length} pixels, {self.spec.vocabulary} grey levels"
