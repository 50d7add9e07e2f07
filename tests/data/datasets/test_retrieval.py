"""Retrieval data: the label is the marked token's value, wherever it is, and nothing else tells it."""

import numpy as np
import pytest

from xformer.errors import ConfigError


@pytest.mark.parametrize("fresh", [False, True])
def test_the_label_is_the_value_of_the_one_marked_token(ready, fresh):
    data = ready("retrieval", values=5, length=40, min_distance=7, fresh=fresh, train_size=640, batch_size=320)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        assert batch.padding_mask is None
        for row, label in zip(batch.tokens.tolist(), batch.labels.tolist(), strict=True):
            marked = [(place, token) for place, token in enumerate(row) if token >= 5]
            [(place, token)] = marked
            assert token - 5 == label < data.spec.classes
            assert place >= 7


def test_places_values_and_labels_are_uniform_and_independent(ready):
    data = ready("retrieval", values=4, length=12, min_distance=4, val_size=4000)
    batch = data.splits["val"].__getitems__(range(4000))
    places, labels = (batch.tokens >= 4).int().argmax(1).numpy(), batch.labels.numpy()
    counts = np.zeros((8, 4))
    np.add.at(counts, (places - 4, labels), 1)
    assert np.abs((counts - 125) / np.sqrt(125)).max() < 4.5
    first = np.zeros((4, 4))
    np.add.at(first, (batch.tokens[:, 0].numpy(), labels), 1)
    assert np.abs((first - 250) / np.sqrt(250)).max() < 4.5


def test_bounds_that_admit_no_data_are_refused(build):
    with pytest.raises(ConfigError, match=r"data\.length=512 has no place .* data\.min_distance=512 .* at least 513\."):
        build("retrieval", min_distance=512)
