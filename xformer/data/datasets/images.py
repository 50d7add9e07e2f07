"""Labelled images from folders or a dataset; by default scikit-learn's digits."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps

from xformer.core.digest import digest
from xformer.data.arrays import Flat
from xformer.data.base import CachedData
from xformer.data.batch import Batch, ImageBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import DataContext, LoaderConfig, RandomSplitConfig
from xformer.data.sources.hold_out import deal_images
from xformer.data.sources.hub import NAMES
from xformer.data.sources.pictures import ImageSource, Pictures, read_images
from xformer.data.spec import DataSpec, ImageSpec
from xformer.data.split import Split
from xformer.data.trivial_baselines import majority
from xformer.errors import ConfigError, DataError

# Raise it whenever the pixels that come out change: a cache written by another version is then not found.
VERSION = 2
_ABOUT = "about.json"
_CHUNK = 1024
Part = tuple[Pictures, Int64[np.ndarray, " rows"]]


class Stored(Split):
    """Decoded images on disk, read on access.

    Args:
        pixels: all values, image by image, channel by channel, row by row.
        shape: channels, height and width.
        labels: the classes.
    """

    def __init__(self, pixels: Flat, shape: tuple[int, int, int], labels: Int64[np.ndarray, " images"]) -> None:
        self.pixels, self.shape, self.labels = pixels, shape, labels

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, indices: Sequence[int]) -> UInt8[np.ndarray, "batch channels height width"]:
        """Read the bytes of some images."""
        return np.asarray(self.pixels.array.reshape(-1, *self.shape)[np.asarray(indices)])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        values = torch.from_numpy(self.rows(indices)).to(torch.float32) / 255
        return ImageBatch(values, torch.from_numpy(self.labels[np.asarray(indices)]))


class Images(CachedData):
    """Images of one size, with values in [0, 1], and their classes.

    A source's own splits are used, and random images of the training part are held out for those it lacks. Decoded
    images are kept on disk and mapped into memory, so that there may be more of them than memory holds.

    Args:
        context: seed of the order of the training batches, and where the decoded images are kept.
        source: where they come from.
        image_size: height and width: the largest middle square, resized by antialiased bicubic interpolation
            (Pillow's). None keeps the images as they are, which must then be of one size.
        channels: 1 for grey (ITU-R 601-2 luma), 3 for red, green and blue.
        mean: of each channel's values in [0, 1], to normalise with; None for that of the training split.
        std: likewise.
        split: what is held out where the source has no such split.
        loader: size of the batches, and who fetches them.

    Raises:
        ConfigError: `mean` and `std` do not go with each other or with `channels`.
        DataError: in `prepare_data`, if the images cannot be read.
    """

    yields: ClassVar[type] = ImageBatch
    pads: ClassVar[bool] = False
    stored: ClassVar[type[Stored]] = Stored
    """The form of this module's batches."""

    def __init__(
        self,
        context: DataContext,
        *,
        source: ImageSource,
        image_size: Annotated[int, Ge(1)] | None,
        channels: Literal[1, 3],
        mean: list[float] | None,
        std: list[Annotated[float, Gt(0)]] | None,
        split: RandomSplitConfig,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(context, loader=loader)
        _check_normalisation(mean, std, channels)
        self.source, self.split, self.form = source, split, (image_size, channels)
        self.mean, self.std = mean, std

    def prepare(self) -> Path:
        """Read, resize and store, unless it is cached.

        Raises:
            DataError: the images cannot be read.
        """
        classes, found = read_images(self.source)
        splits = self._cut(found)
        identity = {name: (pictures.identity, _hash(rows)) for name, (pictures, rows) in splits.items()}
        name = f"images-{digest(VERSION, classes, identity, self.form)}"
        return cached(self.cache, name, lambda directory: self._build(directory, classes, splits))

    def _cut(self, found: dict[str, Pictures]) -> dict[str, Part]:
        """Hold out of "train" the splits that the source lacks."""
        needed = {name: share for name, share in self.split.fractions.items() if share > 0 or name == "val"}
        missing = {name: share for name, share in needed.items() if name not in found}
        in_split = {name: (pictures, np.arange(len(pictures))) for name, pictures in found.items()}
        dealt = deal_images(len(found["train"]), missing, self.split.seed) if missing else {}
        splits = {**in_split, **{name: (found["train"], rows) for name, rows in dealt.items()}}
        return {name: splits[name] for name in NAMES if name in splits}

    def _build(self, directory: Path, classes: list[str], splits: dict[str, Part]) -> None:
        image_size, channels = self.form
        shape: tuple[int, ...] | None = None
        seen: dict[bytes, str] = {}
        copies: Counter[str] = Counter()
        for name, (pictures, rows) in splits.items():
            with (directory / f"{name}.bin").open("wb") as file:
                for row in rows.tolist():
                    values = pixels(pictures.image(row), image_size, channels)
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
        shape = (int(about["shape"][0]), int(about["shape"][1]), int(about["shape"][2]))
        labels = {name: np.fromfile(entry / f"{name}.labels", dtype=np.int64) for name in about["splits"]}
        self.splits = {
            name: self.stored(Flat(entry / f"{name}.bin", np.uint8), shape, in_split)
            for name, in_split in labels.items()
        }
        self.class_counts: list[int] = np.bincount(labels["train"], minlength=len(self.classes)).tolist()
        mean, std = self.mean or about["mean"], self.std or about["std"]
        self.spec = self.describe_images(shape, mean, std)
        self.trivial_baselines = (
            {"majority class": majority(labels["train"], labels["test"])} if "test" in labels else {}
        )
        self.fingerprint = fingerprint(entry)
        self.shape = shape
        self.copies: dict[str, int] = {name: count for name, count in about.get("copies", {}).items() if count}

    def describe_images(self, shape: tuple[int, int, int], mean: list[float], std: list[float]) -> DataSpec:
        """The specification of the data."""
        channels, height, width = shape
        image = ImageSpec(channels=channels, height=height, width=width, mean=mean, std=std)
        return DataSpec(
            vocabulary=256,
            length=height * width,
            classes=len(self.classes),
            class_names=self.classes,
            class_counts=self.class_counts,
            image=image,
        )

    def describe(self) -> str:
        """Source, sizes of the splits and form of the images."""
        source = self.source.place or "scikit-learn's digits"
        sizes = "/".join(f"{len(split):,}" for split in self.splits.values())
        channels, height, width = self.shape
        copies = self.copies.items()
        return (
            f"{type(self).__name__} ({source}): {sizes} images of {height} x {width} pixels, "
            f"{'grey' if channels == 1 else 'RGB'}, {len(self.classes)} classes"
            + "".join(f"; {count:,} images of {name} stand in a split before it too" for name, count in copies)
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


def _check_normalisation(mean: Any, std: Any, channels: int) -> None:
    if (mean is None) != (std is None):
        raise ConfigError(f"data.mean={mean} and data.std={std} belong together: set both, or neither.")
    if mean is not None and (len(mean) != channels or len(std) != channels):
        raise ConfigError(
            f"data.mean={mean} and data.std={std} must each have a number for every one of data.channels={channels}."
        )


def _hash(rows: Int64[np.ndarray, " rows"]) -> str:
    return digest(rows.tolist())
