"""Class weights against scikit-learn's, and those that do not suit the data."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.testing import assert_close

from xformer.data.spec import DataSpec
from xformer.errors import ConfigError
from xformer.tasks.class_weights import resolve_class_weights


def spec(counts: list[int] | None, classes: int = 3) -> DataSpec:
    return DataSpec(vocabulary=5, length=4, classes=classes, class_counts=counts)


def test_balanced_weights_are_scikit_learns():
    counts = [10, 3, 700]
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    assert_close(resolve_class_weights("balanced", spec(counts)), torch.tensor(expected))
    assert resolve_class_weights(None, spec(counts)) is None
    assert_close(resolve_class_weights([1.0, 0.5, 2.5], spec(None)), torch.tensor([1.0, 0.5, 2.5], dtype=torch.float64))


@pytest.mark.parametrize(
    ("weights", "counts", "message"),
    [
        ([1.0, 2.0], None, r"task\.class_weights=\[1\.0, 2\.0\] has 2 weights, and the data have 3 classes"),
        ("balanced", None, r"task\.class_weights=balanced needs data that report their class counts"),
        ("balanced", [3, 0, 1], r"task\.class_weights=balanced has no weight for class 1"),
    ],
)
def test_weights_that_do_not_suit_the_data_are_refused(weights, counts, message):
    with pytest.raises(ConfigError, match=message):
        resolve_class_weights(weights, spec(counts))
