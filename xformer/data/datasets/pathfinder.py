"""Pathfinder (Linsley et al. 2018; Long Range Arena, Tay et al. 2021): does a dashed path join two circles?

Generated as they describe it: two long dashed contours that begin near each other, shorter ones to distract, and a
circle at the beginning of a long contour and at the end of the same (label 1) or of the other (label 0). The Arena drew
its images with the generator of Linsley et al.; this one has the same parameters and is our own, so results on its
images compare with each other, not with published ones. It differs: paddles are placed in the plane and not on a grid,
none is nearer to another than the gap within a contour (see `contours`), and no distractor is left out for want of
room.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float

from xformer.core.digest import digest
from xformer.data.arrays import Flat
from xformer.data.base import CachedData
from xformer.data.batch import ClassificationBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import DataContext, GenerationConfig, LoaderConfig
from xformer.data.datasets.contours import ContourConfig, PaddleConfig, Scenes, Style, draw_contours, scenes
from xformer.data.datasets.pixels import PixelRows
from xformer.data.spec import DataSpec
from xformer.data.trivial_baselines import by_feature, majority
from xformer.errors import ConfigError

# Raise it whenever the generator changes: a cache written by another version is then not found.
VERSION = 1
_TOGETHER = 512


class Pathfinder(CachedData):
    """Pathfinder: square grey images as sequences of pixels of 256 levels, row by row; half of each split has label 1.

    The images depend on `generation` and the style alone, so that every run's own seed meets the same.

    Args:
        context: seed of the order of the training batches, and where the generated images are kept.
        image_size: height and width, in pixels, as are all lengths.
        marker_radius: of the circles.
        padding: between a paddle and the border.
        paddle: the dashes.
        contours: the rows of dashes.
        generation: how many images there are, at least two of each split, and of what seed.
        loader: size of the batches, and who fetches them.

    Raises:
        ConfigError: a value allows no image; in `prepare_data`, the contours do not fit into the image.
    """

    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = False

    def __init__(
        self,
        context: DataContext,
        *,
        image_size: Annotated[int, Ge(1)],
        marker_radius: Annotated[float, Gt(0)],
        padding: Annotated[float, Ge(0)],
        paddle: PaddleConfig,
        contours: ContourConfig,
        generation: GenerationConfig,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(context, loader=loader)
        self.generation, self.sizes = generation, generation.sizes
        for split, size in self.sizes.items():
            if size < 2:
                raise ConfigError(f"data.generation.{split}_size={size} must be at least 2, an image of each label.")
        self.style = Style(
            image_size=image_size, marker_radius=marker_radius, padding=padding, paddle=paddle, contours=contours
        )

    def prepare(self) -> Path:
        """Generate the images unless they are cached.

        Raises:
            ConfigError: the contours do not fit into the image.
        """
        style, paddle, contours = (dict(vars(part)) for part in (self.style, self.style.paddle, self.style.contours))
        # Under the names that these had when the first caches were written.
        named = {
            **{key: style[key] for key in ("image_size", "marker_radius", "padding")},
            **{key if key == "contrast" else f"paddle_{key}": value for key, value in paddle.items()},
            **{"contour_length" if key == "length" else key: value for key, value in contours.items()},
        }
        name = f"pathfinder-{digest(VERSION, self.sizes, named, self.generation.seed)}"
        return cached(self.cache, name, self._build)

    def _build(self, directory: Path) -> None:
        for number, (name, size) in enumerate(self.sizes.items()):
            generator = np.random.default_rng((self.generation.seed, number))
            labels = generator.permutation(np.arange(size) % 2)
            apart: list[Float[np.ndarray, " scenes"]] = []
            with (directory / f"{name}.bin").open("wb") as file:
                for some in _together(scenes(generator, self.style, labels)):
                    file.write(draw_contours(self.style, some).tobytes())
                    apart.append(np.linalg.norm(some.markers[:, 0] - some.markers[:, 1], axis=-1))
            labels.astype(np.int64).tofile(directory / f"{name}.labels")
            np.round(np.concatenate(apart)).astype(np.int64).tofile(directory / f"{name}.apart")

    def load(self) -> None:
        """Map the images into memory and compute the trivial baselines."""
        entry, shape = self.entry, (1, self.style.image_size, self.style.image_size)
        labels, apart = (
            {name: np.fromfile(entry / f"{name}.{kind}", dtype=np.int64) for name in self.sizes}
            for kind in ("labels", "apart")
        )
        self.splits = {
            name: PixelRows(Flat(entry / f"{name}.bin", np.uint8), shape, in_split) for name, in_split in labels.items()
        }
        counts = np.bincount(labels["train"], minlength=2).tolist()
        self.spec = DataSpec(vocabulary=256, length=self.style.image_size**2, classes=2, class_counts=counts)
        self.fingerprint = fingerprint(entry)
        self.trivial_baselines = {
            "majority class": majority(labels["train"], labels["test"]),
            "distance of the circles": by_feature(apart["train"], labels["train"], apart["test"], labels["test"]),
        }

    def describe(self) -> str:
        """Sizes of the splits and form of the images."""
        sizes = "/".join(f"{size:,}" for size in self.sizes.values())
        size, contours = self.style.image_size, self.style.contours
        return (
            f"Pathfinder: {sizes} images of {size} x {size} pixels, contours of {contours.length} paddles, "
            f"{contours.distractors} distractors"
        )


def _together(found: Iterator[Scenes]) -> Iterator[Scenes]:
    """Regroup scenes into larger batches, as drawing few takes as long as drawing many."""
    waiting: list[Scenes] = []
    for some in found:
        waiting.append(some)
        if sum(len(each.labels) for each in waiting) >= _TOGETHER:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Scenes]) -> Scenes:
    return Scenes(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
