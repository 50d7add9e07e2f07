"""Labelled images from folders or a dataset; by default scikit-learn's digits."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps

from xformer.core.digest import digest
from xformer.data.arrays import Flat
from xformer.data.base import CachedData
from xformer.data.batch import ImageBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import RandomSplitConfig
from xformer.data.sources.hub import NAMES
from xformer.data.sources.pictures import ImageSource, Pictures, read_images
from xformer.data.spec import DataSpec, ImageSpec
from xformer.data.splits import StoredImages
from xformer.data.trivial_baselines import class_counts, majority
from xformer.errors import ConfigError, DataError

VERSION = 2
"""Raised whenever the pixels that come out change: a cache written by another version is then not found."""
_ABOUT = "about.json"
_CHUNK = 1024
Part = tuple[Pictures, Int64[np.ndarray, " rows"]]


@dataclass(kw_only=True, eq=False, repr=False)
class Images(CachedData):
    """Images of one size, with values in [0, 1], and their classes.

    A source's own splits are used, and random images of the training part are held out for those it lacks. Decoded
    images are kept on disk and mapped into memory, so that there may be more of them than memory holds.

    Raises:
        ConfigError: `mean` and `std` do not go with each other or with `channels`.
    """

    yields: ClassVar[type] = ImageBatch
    pads: ClassVar[bool] = False
    stored: ClassVar[type[StoredImages]] = StoredImages
    """The form of this module's batches."""

    source: ImageSource  # where they come from
    # height and width: the largest middle square, resized by antialiased bicubic interpolation (Pillow's). None keeps
    # the images as they are, which must then be of one size.
    image_size: Annotated[int, Ge(1)] | None
    channels: Literal[1, 3]  # 1 for grey (ITU-R 601-2 luma), 3 for red, green and blue
    # of each channel's values in [0, 1], to normalise with; None for that of the training split
    mean: list[float] | None
    std: list[Annotated[float, Gt(0)]] | None  # likewise
    split: RandomSplitConfig  # what is held out where the source has no such split

    def __post_init__(self) -> None:
        super().__post_init__()
        mean, std = self.mean, self.std
        if (mean is None) != (std is None):
            raise ConfigError(f"data.mean={mean} and data.std={std} belong together: set both, or neither.")
        if mean is not None and std is not None and not len(mean) == len(std) == self.channels:
            raise ConfigError(
                f"data.mean={mean} and data.std={std} must each have a number for every one of "
                f"data.channels={self.channels}."
            )

    def prepare(self) -> Path:
        """Read, resize and store, unless it is cached.

        Raises:
            DataError: the images cannot be read.
        """
        classes, found = read_images(self.source)
        splits = {name: (pictures, np.arange(len(pictures))) for name, pictures in found.items()}
        # Test first: so were the first caches dealt.
        dealt = self.split.deal(len(found["train"]), found, "images", ("test", "val"))
        splits |= {name: (found["train"], rows) for name, rows in dealt.items()}
        splits = {name: splits[name] for name in NAMES if name in splits}
        identity = {name: (pictures.identity, digest(rows.tolist())) for name, (pictures, rows) in splits.items()}
        name = f"images-{digest(VERSION, classes, identity, (self.image_size, self.channels))}"
        return cached(self.context.cache, name, lambda directory: self._build(directory, classes, splits))

    def _build(self, directory: Path, classes: list[str], splits: dict[str, Part]) -> None:
        shape: tuple[int, ...] | None = None
        seen: dict[bytes, str] = {}
        copies: Counter[str] = Counter()
        for name, (pictures, rows) in splits.items():
            with (directory / f"{name}.bin").open("wb") as file:
                for row in rows.tolist():
                    values = pixels(pictures.image(row), self.image_size, self.channels)
                    shape = shape or values.shape
                    if values.shape != shape:
                        raise DataError(
                            f"{pictures.name(row)} has {values.shape[1]} x {values.shape[2]} pixels and others have "
                            f"{shape[1]} x {shape[2]}: data.image_size={min(shape[1:])} would make them equal."
                        )
                    file.write(values.tobytes())
                    first = seen.setdefault(hashlib.sha256(values.tobytes()).digest(), name)
                    copies[name] += first != name
            pictures.labels[rows].tofile(directory / f"{name}.labels")
        assert shape is not None
        mean, std = moments(Flat(directory / "train.bin", np.uint8).array.reshape(-1, *shape))
        about: dict[str, Any] = {"classes": classes, "shape": shape, "mean": mean, "std": std, "splits": list(splits)}
        if copies.total():
            about["copies"] = dict(copies)
        (directory / _ABOUT).write_text(json.dumps(about), encoding="utf-8")

    def load(self) -> None:
        """Map the images into memory."""
        entry = self.entry
        about = json.loads((entry / _ABOUT).read_text(encoding="utf-8"))
        self.classes: list[str] = about["classes"]
        channels, height, width = about["shape"]
        parts = {
            name: self.stored(
                Flat(entry / f"{name}.bin", np.uint8),
                (channels, height, width),
                np.fromfile(entry / f"{name}.labels", dtype=np.int64),
            )
            for name in about["splits"]
        }
        mean, std = self.mean or about["mean"], self.std or about["std"]
        self.splits, self.trivial_baselines, self.fingerprint = parts, majority(parts), fingerprint(entry)
        self.spec = DataSpec(
            vocabulary=256,
            length=height * width,
            classes=len(self.classes),
            class_names=self.classes,
            class_counts=class_counts(parts["train"].labels, len(self.classes)),
            image=ImageSpec(channels=channels, height=height, width=width, mean=mean, std=std),
        )
        self.size = f"{height} x {width}"
        self.copies: dict[str, int] = {name: count for name, count in about.get("copies", {}).items() if count}

    def describe(self) -> str:
        """Source, sizes of the splits and form of the images."""
        place = self.source.place or "scikit-learn's digits"
        return (
            f"{type(self).__name__} ({place}): {self.split_sizes()} images of "
            f"{self.size} pixels, {'grey' if self.channels == 1 else 'RGB'}, {len(self.classes)} classes"
            + "".join(f"; {n:,} images of {split} stand in a split before it too" for split, n in self.copies.items())
        )


def pixels(image: Image.Image, image_size: int | None, channels: int) -> UInt8[np.ndarray, "channels height width"]:
    """Convert an image to the bytes that are stored."""
    image = image.convert("L" if channels == 1 else "RGB")
    if image_size is not None and image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    values = np.asarray(image, dtype=np.uint8)
    return values.reshape(image.height, image.width, channels).transpose(2, 0, 1)


def moments(stored: UInt8[np.ndarray, "images channels height width"]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel's values in [0, 1]; the latter is 1 for a constant channel."""
    count = stored.shape[0] * stored.shape[2] * stored.shape[3]
    total = squares = np.zeros(stored.shape[1], dtype=np.int64)
    for first in range(0, len(stored), _CHUNK):
        part = stored[first : first + _CHUNK].astype(np.int64)
        total, squares = total + part.sum((0, 2, 3)), squares + (part**2).sum((0, 2, 3))
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return (mean / 255).tolist(), np.where(std > 0, std / 255, 1.0).tolist()
