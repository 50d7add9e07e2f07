"""Images as sequences of pixels, one token each, as in the Long Range Arena (Tay et al. 2021)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Interval

from xformer.data.batch import ClassificationBatch
from xformer.data.datasets.images import Images, Stored
from xformer.data.facts import Facts


class PixelRows(Stored):
    """Grey images as sequences, row by row, whose bytes are the tokens."""

    def __getitems__(self, indices: Sequence[int]) -> ClassificationBatch:
        tokens = self.rows(indices).reshape(len(indices), -1).astype(np.int64)
        labels = self.labels[np.asarray(indices)]
        return ClassificationBatch(torch.from_numpy(tokens), None, torch.from_numpy(labels))


class Pixels(Images):
    """Grey images as sequences of pixels of 256 levels, and their classes.

    Args:
        seed: order of the training batches.
        cache: where the decoded images are kept.
        folder: of image files, in a folder for each class; see `Images`.
        dataset: a local dataset directory, or a name on the hub. With neither, the digits of scikit-learn.
        dataset_config: of the dataset, where it has several.
        image_column: of the dataset.
        label_column: of the dataset.
        image_size: height and width; see `Images`.
        val_fraction: share of the training images to validate on, if the source has no validation split.
        test_fraction: share to test on, if the source has no test split; 0 for no test.
        split_seed: decides which image goes where.
        batch_size: sequences per step over all devices.
        num_workers: processes that fetch ahead.

    Raises:
        ConfigError: a value is out of range, or both `folder` and `dataset` are given.
        DataError: in `prepare_data`, if the images cannot be read.
    """

    yields: ClassVar[type] = ClassificationBatch
    split: ClassVar[type[Stored]] = PixelRows

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        folder: str | None,
        dataset: str | None,
        dataset_config: str | None,
        image_column: str,
        label_column: str,
        image_size: Annotated[int, Ge(1)] | None,
        val_fraction: Annotated[float, Interval(ge=0, lt=1)],
        test_fraction: Annotated[float, Interval(ge=0, lt=1)],
        split_seed: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        num_workers: Annotated[int, Interval(ge=0, le=1024)],
    ) -> None:
        super().__init__(
            seed,
            cache,
            folder=folder,
            dataset=dataset,
            dataset_config=dataset_config,
            image_column=image_column,
            label_column=label_column,
            image_size=image_size,
            channels=1,
            mean=None,
            std=None,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            batch_size=batch_size,
            num_workers=num_workers,
        )

    def describe_images(self, shape: tuple[int, int, int], mean: list[float], std: list[float]) -> Facts:
        """What a task has to know."""
        return Facts(
            vocabulary=256,
            length=shape[1] * shape[2],
            classes=len(self.classes),
            class_names=self.classes,
            class_counts=self.class_counts,
        )
