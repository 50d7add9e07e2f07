import numpy as np
import pytest
import torch

from xformer.errors import ConfigError


def rows(module, split):
    return [tuple(row.tolist()) for row in module.splits[split].pixels]


def test_the_splits_partition_the_images(ready):
    from sklearn.datasets import load_digits

    module = ready("digits")
    pixels, labels = load_digits(return_X_y=True)
    found = [
        (row, label) for split in module.splits.values() for row, label in zip(split.pixels, split.labels, strict=True)
    ]
    ours = sorted((*row.tolist(), int(label)) for row, label in found)
    assert ours == sorted((*map(int, row), int(label)) for row, label in zip(pixels, labels, strict=True))
    assert len(module.splits["test"]) >= 0.15 * len(labels)


def test_the_split_depends_on_its_own_seed_alone(ready):
    first, same, other = ready("digits", seed=1), ready("digits", seed=2), ready("digits", split={"seed": 1})
    assert rows(first, "test") == rows(same, "test") != rows(other, "test")
    assert first.fingerprint == same.fingerprint != other.fingerprint


def test_batches_are_64_pixels_without_padding(ready):
    module = ready("digits")
    assert (module.spec.vocabulary, module.spec.length, module.spec.classes, module.pads) == (17, 64, 10, False)
    seen = 0
    for batch in module.test_dataloader():
        assert type(batch) is module.yields
        assert batch.tokens.shape[1] == 64
        assert batch.padding_mask is None
        assert batch.tokens.dtype == batch.labels.dtype == torch.int64
        assert 0 <= batch.tokens.min() <= batch.tokens.max() < 17
        seen += len(batch.labels)
    assert seen == len(module.splits["test"])
    assert module.describe() == "Digits: 1,258/180/359 images, 64 pixels, 17 grey levels"


def test_the_floor_is_the_majority_class(ready):
    module = ready("digits")
    guess = np.bincount(module.splits["train"].labels).argmax()
    assert module.trivial_baselines == {"majority class": np.mean(module.splits["test"].labels == guess)}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.2, 0.9)])
def test_fractions_that_leave_nothing_are_refused(build, fractions):
    with pytest.raises(ConfigError, match=r"data\.split\.val_fraction=.*data\.split\.test_fraction="):
        build("digits", val_fraction=fractions[0], test_fraction=fractions[1])


@pytest.mark.parametrize("fraction", [0.0, 0.0001])
def test_a_fraction_below_one_image_is_refused(build, fraction):
    with pytest.raises(ConfigError, match="of 1797 images leave none for val"):
        build("digits", val_fraction=fraction).setup("fit")
