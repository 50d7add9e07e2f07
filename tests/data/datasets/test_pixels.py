"""Images as sequences of pixels, against Pillow's grey levels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.drawn import picture, saved, write
from xformer.data.batch import ClassificationBatch


@pytest.fixture
def pixels(ready: Any) -> Any:
    return lambda **source: ready("cifar10_pixels", **{"dataset": None, "batch_size": 4, **source})


def test_the_preset_reads_a_local_dataset(pixels: Any, tmp_path: Path) -> None:
    module = pixels(dataset=str(saved(tmp_path / "set", train=[0, 1] * 10, test=[1, 0])))
    batch = next(iter(module.test_dataloader()))
    assert type(batch) is module.yields is ClassificationBatch
    assert (module.spec.vocabulary, module.spec.length, module.spec.classes) == (256, 36, 2)
    assert (module.pads, module.spec.image) == (False, None)
    assert batch.padding_mask is None
    assert batch.tokens.dtype == batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [1, 0]
    for row, tokens in enumerate(batch.tokens):
        np.testing.assert_array_equal(tokens, np.asarray(picture(row).convert("L")).reshape(-1))


def test_pixels_follow_each_other_row_by_row(pixels: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, 10, size=(4, 3))
    module = pixels(folder=str(tmp_path), test_fraction=0.0)
    assert module.spec.length == 12
    expected = {picture(number, (4, 3)).convert("L").tobytes() for number in range(10)}
    found = [split.__getitems__(range(len(split))).tokens for split in module.splits.values()]
    assert {bytes(row) for tokens in found for row in tokens.tolist()} == expected


def test_the_spec_name_and_count_the_classes(pixels: Any, folder: Path) -> None:
    write(folder / "dog", 10, 60)
    module = pixels(folder=str(folder), test_fraction=0.2)
    labels = module.splits["train"].__getitems__(range(len(module.splits["train"]))).labels.tolist()
    assert module.spec.class_names == ["cat", "dog"]
    assert module.spec.class_counts == [labels.count(0), labels.count(1)]
