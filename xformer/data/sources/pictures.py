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

from xformer.data.sources.hub import NAMES, DatasetSource, check_columns, load_dataset_splits
from xformer.errors import DataError

_EIGHT_BITS = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
_LISTED = 12
_SYSTEM = {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db",
           "ehthumbs.db", "desktop.ini", "icon\r"}  # fmt: skip
"""Names, in lower case, of what systems leave in folders of images."""

OFFLINE = "the handwritten digits of scikit-learn: data=images, or data=digits for one token per pixel"


@dataclass(frozen=True)
class Pictures:
    """Labelled images that are decoded on access.

    Attributes:
        stored: each image, as a path, as `datasets` keeps it undecoded, or as grey levels.
        labels: of each image, its class's number.
        identity: changes with everything that the images depend on.
        name: what to call an image in a message.
    """

    stored: Sequence[Any]
    labels: Int64[np.ndarray, " images"]
    identity: str
    name: Callable[[int], str]

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
    """Settings of labelled images; by default (no `folder` or `dataset`) scikit-learn's handwritten digits.

    Attributes:
        folder: with a folder for each class in it, or with `train` and as many of `val` and `test` as there are, which
            have these. Every file in a class's folder is taken for an image, but for what is hidden or the system's.
        image_column: of the dataset.
        label_column: of the dataset.
    """

    source_keys: ClassVar[tuple[str, ...]] = ("folder", "dataset")

    folder: str | None
    image_column: str
    label_column: str


def read_images(source: ImageSource) -> tuple[list[str], dict[str, Pictures]]:
    """Find images by split; a source without splits is the split "train".

    Returns:
        The names of the classes, and the images.

    Raises:
        DataError: there are no images, or a label is not among the training images' classes.
    """
    if source.folder is not None:
        return _read_folder(source.folder)
    if source.dataset is not None:
        return _read_dataset(source.dataset, source.dataset_config, source.image_column, source.label_column)
    return [str(digit) for digit in range(10)], {"train": _digits()}


def _read_folder(folder: str) -> tuple[list[str], dict[str, Pictures]]:
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"data.source.folder={folder} is not a directory (seen from {Path.cwd()}): correct the path.")
    parts: dict[str, Path] = {}
    for split, names in NAMES.items():
        subfolder = next((root / name for name in names if (root / name).is_dir()), None)
        if subfolder is not None:
            parts[split] = subfolder
    if "train" not in parts:
        parts = {"train": root}
    classes = [path.name for path in _entries(parts["train"]) if path.is_dir()]
    if len(classes) < 2:
        raise DataError(
            f"data.source.folder={folder} has {len(classes)} class folders in {parts['train']}: put the images of each "
            "class into a folder of its name there, at least two."
        )
    found = {split: _read_classes(part, classes) for split, part in parts.items()}
    counts = np.bincount(found["train"].labels, minlength=len(classes))
    if not counts.all():
        empty = [name for name, count in zip(classes, counts, strict=True) if not count]
        raise DataError(
            f"{parts['train'] / empty[0]} holds no image, but every class needs some: put some there, or "
            f"remove the {'folders of ' + _listed(empty) if len(empty) > 1 else 'folder'}."
        )
    return classes, dict(found)


def _read_classes(part: Path, classes: list[str]) -> Pictures:
    paths: list[Path] = []
    labels: list[int] = []
    for subfolder in _entries(part):
        if not subfolder.is_dir():
            continue
        if subfolder.name not in classes:
            raise DataError(
                f"{subfolder} is a label outside of the training images' classes ({_listed(classes)}): move it."
            )
        found = _files(subfolder)
        paths += found
        labels += [classes.index(subfolder.name)] * len(found)
    if not paths:
        raise DataError(f"{part} holds no image: put some into the folders of the classes ({_listed(classes)}).")
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


def _read_dataset(
    name: str, config: str | None, image_column: str, label_column: str
) -> tuple[list[str], dict[str, Pictures]]:
    from datasets import ClassLabel
    from datasets import Image as Feature

    splits = load_dataset_splits(name, config, offline=OFFLINE)
    for part in splits.values():
        check_columns(name, part.column_names, {"image_column": image_column, "label_column": label_column})
    features = splits["train"].features
    if not isinstance(features[image_column], Feature):
        raise DataError(
            f"data.source.image_column={image_column} of data.source.dataset={name} holds no images: choose another."
        )
    label = features[label_column]
    values = {split: part[label_column][:] for split, part in splits.items()}
    known: list[Any] = list(range(label.num_classes)) if isinstance(label, ClassLabel) else _distinct(values["train"])
    classes = list(label.names) if isinstance(label, ClassLabel) else [str(value) for value in known]
    found: dict[str, Pictures] = {}
    for split, part in splits.items():
        where = f"the {split} split of data.source.dataset={name}"
        if not len(part):
            raise DataError(f"{where[0].upper()}{where[1:]} is empty: choose another dataset.")
        labels = _numbers(values[split], known, f"{where}, {label_column},")
        encoded = part.cast_column(image_column, Feature(decode=False))[image_column]
        identity = f"{part._fingerprint} {image_column} {labels}"
        named = partial("Row {1} of {0}".format, where)
        found[split] = Pictures(encoded, np.array(labels, dtype=np.int64), identity, named)
    return classes, found


def _distinct(values: Sequence[Any]) -> list[Any]:
    return sorted({value for value in values if value is not None})


def _numbers(values: Sequence[Any], known: list[Any], where: str) -> list[int]:
    numbers = {value: number for number, value in enumerate(known)}
    for row, value in enumerate(values):
        if value not in numbers:
            raise DataError(
                f"Row {row} of {where} has the label {value}, which is outside of the classes "
                f"({_listed([str(each) for each in known])}): correct or leave out such rows."
            )
    return [numbers[value] for value in values]


def _listed(classes: list[str]) -> str:
    return ", ".join(classes[:_LISTED]) + (", ..." if len(classes) > _LISTED else "")


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
