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
from annotated_types import Ge, Gt, Interval
from jaxtyping import Float

from xformer.core.digest import digest
from xformer.data.arrays import Flat
from xformer.data.base import CachedData
from xformer.data.batch import ClassificationBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.datasets.contours import Scenes, Style, draw_contours, scenes
from xformer.data.datasets.pixels import PixelRows
from xformer.data.facts import Facts
from xformer.data.floors import by_feature, majority

# Raise it whenever the generator changes: a cache written by another version is then not found.
VERSION = 1
_TOGETHER = 512


class Pathfinder(CachedData):
    """Square grey images as sequences of pixels of 256 levels, row by row; half of each split has label 1.

    The images depend on `generation_seed`, the sizes and the style alone, so that every run's `seed` meets the same.

    Args:
        seed: order of the training batches.
        cache: where the generated images are kept.
        train_size: number of training images.
        val_size: number of validation images.
        test_size: number of test images.
        image_size: height and width, in pixels, as are all lengths.
        contour_length: paddles (dashes) of each of the two long contours.
        distractor_length: paddles of a distractor.
        distractors: how many distractors there are.
        paddle_length: of a paddle.
        paddle_thickness: of a paddle.
        paddle_margin: half of the gap between two paddles of a contour.
        continuity: at least 1; the larger, the straighter the contours.
        seed_distance: between the beginnings of the two long contours.
        marker_radius: of the circles.
        padding: between a paddle and the border.
        contrast: brightness of the paddles, where the circles have 1.
        generation_seed: decides the images.
        batch_size: sequences per step over all devices.
        num_workers: processes that fetch ahead.

    Raises:
        ConfigError: a value admits no image; in `prepare_data`, if there is no room for what is asked for.
    """

    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = False

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        train_size: Annotated[int, Ge(2)],
        val_size: Annotated[int, Ge(2)],
        test_size: Annotated[int, Ge(2)],
        image_size: Annotated[int, Ge(1)],
        contour_length: Annotated[int, Ge(1)],
        distractor_length: Annotated[int, Ge(1)],
        distractors: Annotated[int, Ge(0)],
        paddle_length: Annotated[float, Gt(0)],
        paddle_thickness: Annotated[float, Gt(0)],
        paddle_margin: Annotated[float, Gt(0)],
        continuity: Annotated[float, Ge(1)],
        seed_distance: Annotated[float, Gt(0)],
        marker_radius: Annotated[float, Gt(0)],
        padding: Annotated[float, Ge(0)],
        contrast: Annotated[float, Gt(0)],
        generation_seed: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        num_workers: Annotated[int, Interval(ge=0, le=1024)],
    ) -> None:
        super().__init__(seed, cache, batch_size=batch_size, num_workers=num_workers)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.style = Style(
            image_size=image_size,
            contour_length=contour_length,
            distractor_length=distractor_length,
            distractors=distractors,
            paddle_length=paddle_length,
            paddle_thickness=paddle_thickness,
            paddle_margin=paddle_margin,
            continuity=continuity,
            seed_distance=seed_distance,
            marker_radius=marker_radius,
            padding=padding,
            contrast=contrast,
        )
        self.generation_seed = generation_seed

    def prepare(self) -> Path:
        """Generate the images unless they are cached.

        Raises:
            ConfigError: there is no room for what is asked for.
        """
        name = f"pathfinder-{digest(VERSION, self.sizes, vars(self.style), self.generation_seed)}"
        return cached(self.cache, name, self._build)

    def _build(self, directory: Path) -> None:
        for number, (name, size) in enumerate(self.sizes.items()):
            generator = np.random.default_rng((self.generation_seed, number))
            labels = generator.permutation(np.arange(size) % 2)
            apart: list[Float[np.ndarray, " scenes"]] = []
            with (directory / f"{name}.bin").open("wb") as file:
                for some in _together(scenes(generator, self.style, labels)):
                    file.write(draw_contours(self.style, some).tobytes())
                    apart.append(np.linalg.norm(some.markers[:, 0] - some.markers[:, 1], axis=-1))
            labels.astype(np.int64).tofile(directory / f"{name}.labels")
            np.round(np.concatenate(apart)).astype(np.int64).tofile(directory / f"{name}.apart")

    def load(self) -> None:
        """Map the images into memory and measure the floors."""
        entry, shape = self.entry, (1, self.style.image_size, self.style.image_size)
        labels, apart = (
            {name: np.fromfile(entry / f"{name}.{kind}", dtype=np.int64) for name in self.sizes}
            for kind in ("labels", "apart")
        )
        self.splits = {
            name: PixelRows(Flat(entry / f"{name}.bin", np.uint8), shape, in_split) for name, in_split in labels.items()
        }
        counts = np.bincount(labels["train"], minlength=2).tolist()
        self.facts = Facts(vocabulary=256, length=self.style.image_size**2, classes=2, class_counts=counts)
        self.fingerprint = fingerprint(entry)
        self.floors = {
            "majority class": majority(labels["train"], labels["test"]),
            "distance of the circles": by_feature(apart["train"], labels["train"], apart["test"], labels["test"]),
        }

    def describe(self) -> str:
        """Sizes of the splits and form of the images."""
        sizes = "/".join(f"{size:,}" for size in self.sizes.values())
        size, length = self.style.image_size, self.style.contour_length
        return (
            f"Pathfinder: {sizes} images of {size} x {size} pixels, contours of {length} paddles, "
            f"{self.style.distractors} distractors"
        )


def _together(found: Iterator[Scenes]) -> Iterator[Scenes]:
    """The same scenes, more at a time: drawing few takes as long as drawing many."""
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
