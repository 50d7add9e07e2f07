"""Small pictures of random pixels, written to folders and to datasets on disk."""

from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def write(folder: Path, count: int, first: int = 0, **options: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(number, **options).save(folder / f"{number:03}.png")


def saved(directory: Path, **splits: list[Any]) -> Path:
    features = Features(img=ImageFeature(), label=ClassLabel(names=["no", "yes"]))
    parts = {
        name: Dataset.from_dict({"img": [picture(i) for i in range(len(labels))], "label": labels}, features=features)
        for name, labels in splits.items()
    }
    DatasetDict(parts).save_to_disk(str(directory))
    return directory
