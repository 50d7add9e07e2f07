"""Image sources: folders, a dataset on disk or the hub, or scikit-learn's digits.

Datasets are read by `datasets`, folders here: its `imagefolder` leaves out files whose names it does not know, names a
class after the innermost folder, adds the classes of other splits and says nothing of one without images.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageOps, UnidentifiedImageError

from xformer.data.sources.hub import DatasetSource, listed, load_dataset_splits, split_names
from xformer.errors import DataError

_EIGHT_BITS = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
_SYSTEM = {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db",
           "ehthumbs.db", "desktop.ini", "icon\r"}  # fmt: skip
"""Names, in lower case, of what systems leave in folders of images."""

OFFLINE = "the handwritten digits of scikit-learn: data=images, or data=digits for one token per pixel"


@dataclass(frozen=True)
class Pictures:
    """Labelled images that are decoded on access."""

    stored: Sequence[Any]  # each image, as a path, as `datasets` keeps it undecoded, or as grey levels
    labels: Int64[np.ndarray, " images"]  # of each image, its class's number
    identity: str  # changes with everything that the images depend on
    name: Callable[[int], str]  # what to call an image in a message

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """Decode one image.

        Raises:
            DataError: the image cannot be decoded.
        """
        stored = self.stored[index]
        if isinstance(stored, np.ndarray):
            return Image.fromarray(stored)
        if not isinstance(stored, Path):
            encoded, path = (stored or {}).get("bytes"), Path((stored or {}).get("path") or "")
            stored = path if encoded is None else BytesIO(encoded)
        return _decode(stored, self.name(index))


def _digits() -> Pictures:
    """scikit-learn's 1,797 grey 8 x 8 images, whose 17 levels are spread over the 256 of a byte."""
    from sklearn.datasets import load_digits

    levels, digits = load_digits(return_X_y=True)
    pixels = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return Pictures(
        list(pixels), digits.astype(np.int64), hashlib.sha256(pixels.tobytes()).hexdigest(), "digit {}".format
    )


@dataclass(frozen=True, kw_only=True)
class ImageSource(DatasetSource):
    """Settings of labelled images; by default (no `folder` or `dataset`) scikit-learn's handwritten digits."""

    source_keys: ClassVar[tuple[str, ...]] = ("folder", "dataset")

    # with a folder for each class in it, or with `train` and as many of `val` and `test` as there are, which have
    # these. Every file in a class's folder is taken for an image, but for what is hidden or the system's.
    folder: str | None
    image_column: str  # of the dataset
    label_column: str  # of the dataset


def read_images(source: ImageSource) -> tuple[list[str], dict[str, Pictures]]:
    """Find images by split; a source without splits is the split "train".

    Returns:
        The names of the classes, and the images.

    Raises:
        DataError: there are no images, or a label is not among the training images' classes.
    """
    if source.folder is not None:
        return _read_folder(source)
    if source.dataset is not None:
        return _read_dataset(source)
    return [str(digit) for digit in range(10)], {"train": _digits()}


def _read_folder(source: ImageSource) -> tuple[list[str], dict[str, Pictures]]:
    root = Path(str(source.folder)).expanduser()
    if not root.is_dir():
        raise DataError(
            f"data.source.folder={source.folder} is not a directory (seen from {Path.cwd()}): correct the path."
        )
    parts = {split: root / name for split, name in split_names([p.name for p in root.iterdir() if p.is_dir()]).items()}
    if "train" not in parts:
        parts = {"train": root}
    images = {split: {p: _files(p) for p in _entries(part) if p.is_dir()} for split, part in parts.items()}
    classes = [subfolder.name for subfolder in images["train"]]
    if len(classes) < 2:
        raise DataError(
            f"data.source.folder={source.folder} has {len(classes)} class folders in {parts['train']}: put the images "
            "of each class into a folder of its name there, at least two."
        )
    if empty := [subfolder for subfolder, files in images["train"].items() if not files]:
        folders = f"folders of {listed(each.name for each in empty)}" if len(empty) > 1 else "folder"
        raise DataError(
            f"{empty[0]} holds no image, but every class needs some: put some there, or remove the {folders}."
        )
    return classes, {split: _of_files(parts[split], found, classes) for split, found in images.items()}


def _of_files(part: Path, images: dict[Path, list[Path]], classes: list[str]) -> Pictures:
    if other := [subfolder for subfolder in images if subfolder.name not in classes]:
        raise DataError(f"{other[0]} is a label outside of the training images' classes ({listed(classes)}): move it.")
    paths = [path for files in images.values() for path in files]
    if not paths:
        raise DataError(f"{part} holds no image: put some into the folders of the classes ({listed(classes)}).")
    labels = [classes.index(subfolder.name) for subfolder, files in images.items() for _ in files]
    # They are the same as long as their names, sizes and times are.
    about = [(str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    identity = hashlib.sha256(repr((about, labels)).encode()).hexdigest()
    return Pictures(paths, np.array(labels, dtype=np.int64), identity, lambda index: str(paths[index]))


def _entries(folder: Path) -> list[Path]:
    """The entries of a folder by name, without hidden files and files that the system made."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _SYSTEM)


def _files(folder: Path) -> list[Path]:
    """All files in a folder and those below it, by name."""
    within = [path for path in _entries(folder) if not (path.is_dir() and path.is_symlink())]  # which may lead back
    below = [_files(path) if path.is_dir() else [path] * path.is_file() for path in within]
    return sorted(path for paths in below for path in paths)


def _read_dataset(source: ImageSource) -> tuple[list[str], dict[str, Pictures]]:
    from datasets import ClassLabel
    from datasets import Image as Feature

    image_column, label_column = source.image_column, source.label_column
    columns = {"image_column": image_column, "label_column": label_column}
    splits = load_dataset_splits(source, columns, offline=OFFLINE)
    features = splits["train"].features
    if not isinstance(features[image_column], Feature):
        raise DataError(
            f"data.source.image_column={image_column} of data.source.dataset={source.dataset} holds no images: choose "
            "another."
        )
    label = features[label_column]
    named = isinstance(label, ClassLabel)
    values = set(range(label.num_classes) if named else splits["train"][label_column][:]) - {None}
    numbers = {value: number for number, value in enumerate(sorted(values))}
    classes = list(label.names) if named else [str(value) for value in numbers]
    found: dict[str, Pictures] = {}
    for split, part in splits.items():
        where = f"the {split} split of data.source.dataset={source.dataset}"
        if not len(part):
            raise DataError(f"{where[0].upper()}{where[1:]} is empty: choose another dataset.")
        for row, value in enumerate(part[label_column]):
            if value not in numbers:
                raise DataError(
                    f"Row {row} of {where}, {label_column}, has the label {value}, which is outside of the classes "
                    f"({listed(map(str, numbers))}): correct or leave out such rows."
                )
        labels = [numbers[value] for value in part[label_column]]
        encoded = part.cast_column(image_column, Feature(decode=False))[image_column]
        identity = f"{part._fingerprint} {image_column} {labels}"
        name = partial("Row {1} of {0}".format, where)
        found[split] = Pictures(encoded, np.array(labels, dtype=np.int64), identity, name)
    return classes, found


def _decode(source: Path | BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(source) as opened:
            # What a camera stored sideways is turned, as every viewer does.
            image = ImageOps.exif_transpose(opened)
            image.load()
    except Exception as error:
        # Pillow's formats raise errors of many types.
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else str(error).rstrip(".")
        raise DataError(f"{name} does not decode as an image ({reason}): replace or remove it.") from error
    if image.mode not in _EIGHT_BITS:
        raise DataError(f"{name} has pixels of mode {image.mode}, not of 8 bits: convert it.")
    return image
