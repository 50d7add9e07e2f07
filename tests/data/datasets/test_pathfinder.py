"""Pathfinder as data: sequences, labels, and what is kept. What the images show is the contours' test."""

from typing import Any

import numpy as np
import pytest

from xformer.data.datasets.pathfinder import Pathfinder
from xformer.errors import ConfigError

SMALL = {"train_size": 60, "val_size": 10, "test_size": 20, "batch_size": 8}


def test_batches_are_sequences_and_labels_are_balanced(ready: Any) -> None:
    module = ready("pathfinder", **SMALL)
    assert (module.spec.vocabulary, module.spec.length, module.spec.classes) == (256, 1024, 2)
    assert module.spec.class_counts == [30, 30]
    for name, size in (("train", 60), ("val", 10), ("test", 20)):
        batch = module.splits[name].__getitems__(range(size))
        assert batch.tokens.shape == (size, 1024)
        assert batch.padding_mask is None
        assert batch.labels.sum() == size // 2
        assert batch.tokens.max() == 255
        assert len(np.unique(batch.tokens.numpy(), axis=0)) == size
    assert module.trivial_baselines["majority class"] == 0.5
    assert module.describe().startswith("Pathfinder: 60/10/20 images of 32 x 32 pixels, contours of 6 paddles")


def test_images_depend_on_their_own_seed_alone_and_are_kept(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ready("pathfinder", **SMALL, seed=1)
    other = ready("pathfinder", **SMALL, generation={"seed": 1})
    assert first.fingerprint != other.fingerprint
    with monkeypatch.context() as patched:
        patched.setattr(Pathfinder, "_build", lambda *_: pytest.fail("generated again"))
        assert ready("pathfinder", **SMALL, seed=2).fingerprint == first.fingerprint
    for path in first.context.cache.glob("pathfinder-*/train.bin"):
        path.write_bytes(path.read_bytes()[:-1])  # truncated: generated again, and the same
    assert ready("pathfinder", **SMALL).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"marker_radius": 3.0}, "data.marker_radius=3.0 must be at most 2"),
    ],
)
def test_values_that_admit_no_image_are_refused(build: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("pathfinder", **options)
    assert sentence in str(caught.value)
