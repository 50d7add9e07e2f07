"""Accuracies that need no model: what a result must beat before it means anything."""

import numpy as np
from jaxtyping import Integer


def majority(train: Integer[np.ndarray, " train"], test: Integer[np.ndarray, " test"]) -> float:
    """Test accuracy of always answering the training set's most frequent label."""
    return float((test == np.bincount(train).argmax()).mean())


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
