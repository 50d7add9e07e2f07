"""Trivial baselines: scores that need no model, which a useful result must beat."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Integer

from xformer.data.arrays import Flat
from xformer.data.splits import LabelledSplit

_PORTION = 1 << 22


def class_counts(labels: Integer[np.ndarray, " items"], classes: int) -> list[int]:
    """The number of items of each class."""
    counts: list[int] = np.bincount(labels, minlength=classes).tolist()
    return counts


def majority(splits: Mapping[str, LabelledSplit]) -> dict[str, float]:
    """Test accuracy of always answering the training set's most frequent label; nothing where there is no test."""
    if "test" not in splits:
        return {}
    guess = np.bincount(splits["train"].labels).argmax()
    return {"majority class": float((splits["test"].labels == guess).mean())}


def by_feature(
    feature: Integer[np.ndarray, " train"],
    labels: Integer[np.ndarray, " train"],
    test_feature: Integer[np.ndarray, " test"],
    test_labels: Integer[np.ndarray, " test"],
) -> float:
    """Test accuracy of the best predictor that sees one discrete feature, fitted on the training set."""
    counts = np.zeros((int(max(feature.max(), test_feature.max())) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (feature, labels), 1)
    return float((counts.argmax(axis=1)[test_feature] == test_labels).mean())


def unigram(train: Flat, test: Flat, vocabulary: int) -> float:
    """Test loss, in nats per token, of predicting each token with its frequency in training.

    Every token is counted once more than it occurs, so that none is impossible. The test split's first token is left
    out, as it is for a model.
    """
    expected = _counts(train, vocabulary) + 1
    seen = _counts(test, vocabulary)
    seen[test.array[0]] -= 1
    return float(-(seen * np.log(expected / expected.sum())).sum() / seen.sum())


def _counts(tokens: Flat, vocabulary: int) -> Float64[np.ndarray, " vocabulary"]:
    counts = np.zeros(vocabulary)
    for first in range(0, len(tokens), _PORTION):
        counts += np.bincount(tokens.array[first : first + _PORTION], minlength=vocabulary)
    return counts
