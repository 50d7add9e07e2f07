"""Pathfinder (Linsley et al. 2018; Long Range Arena, Tay et al. 2021): does a dashed path join two circles?

Generated as they describe it: two long dashed contours that begin near each other, shorter ones to distract, and a
circle at the beginning of a long contour and at the end of the same (label 1) or of the other (label 0). The Arena drew
its images with the generator of Linsley et al.; this one has the same parameters and is our own, so results on its
images compare with each other, not with published ones. It differs: paddles are placed in the plane and not on a grid,
none is nearer to another than the gap within a contour (see `contours`), and no distractor is left out for want of
room.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from xformer.core.digest import digest
from xformer.data.arrays import Flat
from xformer.data.base import CachedData
from xformer.data.batch import ClassificationBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import GenerationConfig
from xformer.data.datasets.contours import Style, draw_contours, scenes
from xformer.data.spec import DataSpec
from xformer.data.splits import PixelRows
from xformer.data.trivial_baselines import by_feature, class_counts, majority
from xformer.errors import ConfigError

VERSION = 1
"""Raised whenever the generator changes: a cache written by another version is then not found."""


@dataclass(kw_only=True, eq=False, repr=False)
class Pathfinder(Style, CachedData):
    """Pathfinder: square grey images as sequences of pixels of 256 levels, row by row; half of each split has label 1.

    The images depend on `generation` and the style alone, so that every run's own seed meets the same.

    Raises:
        ConfigError: a value allows no image; in `prepare_data`, the contours do not fit into the image.
    """

    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = False

    generation: GenerationConfig  # how many images there are, at least two of each split, and of what seed

    def __post_init__(self) -> None:
        CachedData.__post_init__(self)
        Style.__post_init__(self)
        for split, size in self.generation.sizes.items():
            if size < 2:
                raise ConfigError(f"data.generation.{split}_size={size} must be at least 2, an image of each label.")

    def prepare(self) -> Path:
        """Generate the images unless they are cached.

        Raises:
            ConfigError: the contours do not fit into the image.
        """
        # Under the names that these had when the first caches were written.
        named = {
            **{key: getattr(self, key) for key in ("image_size", "marker_radius", "padding")},
            **{key if key == "contrast" else f"paddle_{key}": value for key, value in vars(self.paddle).items()},
            **{"contour_length" if key == "length" else key: value for key, value in vars(self.contours).items()},
        }
        name = f"pathfinder-{digest(VERSION, self.generation.sizes, named, self.generation.seed)}"
        return cached(self.context.cache, name, self._build)

    def _build(self, directory: Path) -> None:
        for number, (name, size) in enumerate(self.generation.sizes.items()):
            generator = np.random.default_rng((self.generation.seed, number))
            labels = generator.permutation(np.arange(size) % 2)
            apart: list[float] = []
            with (directory / f"{name}.bin").open("wb") as file:
                for some in scenes(generator, self, labels):
                    file.write(draw_contours(self, some).tobytes())
                    apart += np.linalg.norm(some.markers[:, 0] - some.markers[:, 1], axis=-1).tolist()
            labels.astype(np.int64).tofile(directory / f"{name}.labels")
            np.round(apart).astype(np.int64).tofile(directory / f"{name}.apart")

    def load(self) -> None:
        """Map the images into memory and compute the trivial baselines."""
        entry, shape = self.entry, (1, self.image_size, self.image_size)
        labels, apart = (
            {name: np.fromfile(entry / f"{name}.{kind}", dtype=np.int64) for name in self.generation.sizes}
            for kind in ("labels", "apart")
        )
        parts = {name: PixelRows(Flat(entry / f"{name}.bin", np.uint8), shape, labels[name]) for name in labels}
        self.splits, self.fingerprint = parts, fingerprint(entry)
        counts = class_counts(labels["train"], 2)
        self.spec = DataSpec(vocabulary=256, length=self.image_size**2, classes=2, class_counts=counts)
        by_distance = by_feature(apart["train"], labels["train"], apart["test"], labels["test"])
        self.trivial_baselines = {**majority(parts), "distance of the circles": by_distance}

    def describe(self) -> str:
        """Sizes of the splits and form of the images."""
        return (
            f"Pathfinder: {self.split_sizes()} images of {self.image_size} x {self.image_size} pixels, contours of "
            f"{self.contours.length} paddles, {self.contours.distractors} distractors"
        )
