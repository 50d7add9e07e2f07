"""Images as sequences of pixels, one token each, as in the Long Range Arena (Tay et al. 2021)."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge

from xformer.data.batch import ClassificationBatch
from xformer.data.configs import DataContext, LoaderConfig, RandomSplitConfig
from xformer.data.datasets.images import Images, Stored
from xformer.data.sources.pictures import ImageSource
from xformer.data.spec import DataSpec


class PixelRows(Stored):
    """Grey images as token sequences, row by row: each byte is a token."""

    def __getitems__(self, indices: Sequence[int]) -> ClassificationBatch:
        tokens = self.rows(indices).reshape(len(indices), -1).astype(np.int64)
        labels = self.labels[np.asarray(indices)]
        return ClassificationBatch(torch.from_numpy(tokens), None, torch.from_numpy(labels))


class Pixels(Images):
    """Labelled grey images as sequences of pixels of 256 levels.

    Args:
        context: seed of the order of the training batches, and where the decoded images are kept.
        source: where they come from.
        image_size: height and width; see `Images`.
        split: what is held out where the source has no such split.
        loader: size of the batches, and who fetches them.

    Raises:
        DataError: in `prepare_data`, if the images cannot be read.
    """

    yields: ClassVar[type] = ClassificationBatch
    stored: ClassVar[type[Stored]] = PixelRows

    def __init__(
        self,
        context: DataContext,
        *,
        source: ImageSource,
        image_size: Annotated[int, Ge(1)] | None,
        split: RandomSplitConfig,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(
            context, source=source, image_size=image_size, channels=1, mean=None, std=None, split=split, loader=loader
        )

    def describe_images(self, shape: tuple[int, int, int], mean: list[float], std: list[float]) -> DataSpec:
        """The specification of the data."""
        return DataSpec(
            vocabulary=256,
            length=shape[1] * shape[2],
            classes=len(self.classes),
            class_names=self.classes,
            class_counts=self.class_counts,
        )
