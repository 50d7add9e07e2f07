"""Floors against sums by hand and a loop over tokens."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.arrays import Flat
from xformer.data.splits import PixelRows
from xformer.data.trivial_baselines import by_feature, majority, unigram


def majority_of(train, test):
    def split(labels):
        return PixelRows(np.zeros(0, np.uint8), (1, 1, 1), labels)

    assert majority({"train": split(train)}) == {}
    return majority({"train": split(train), "test": split(test)})["majority class"]


def test_trivial_baselines_on_hand_written_labels():
    train, test = np.array([1, 1, 1, 0, 2, 2]), np.array([1, 0, 2, 2])
    feature, test_feature = np.array([5, 5, 5, 3, 4, 4]), np.array([5, 3, 4, 9])
    assert majority_of(train, test) == 0.25
    # An unseen feature falls to the first label.
    assert by_feature(feature, train, test_feature, test) == 0.75


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_by_feature_is_a_vote_of_the_training_labels_with_that_feature(data):
    seen = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30)
    train, test = data.draw(seen), data.draw(seen)

    def vote(feature):
        votes = Counter(label for other, label in train if other == feature)
        return min((label for label in votes if votes[label] == max(votes.values())), default=0)

    expected = sum(vote(feature) == label for feature, label in test) / len(test)
    assert by_feature(*np.array(train).T, *np.array(test).T) == expected


def test_one_feature_for_all_is_the_majority():
    train, test = np.array([2, 0, 2, 1]), np.array([2, 2, 0])
    none, test_none = np.zeros_like(train), np.zeros_like(test)
    assert by_feature(none, train, test_none, test) == majority_of(train, test) == 2 / 3


def written(path, tokens, dtype="uint8"):
    np.asarray(tokens, dtype=dtype).tofile(path)
    return Flat(path, dtype)


def test_unigram_is_the_mean_surprise_of_all_test_tokens_but_the_first(tmp_path):
    train, test = [0, 0, 0, 1, 3], [3, 0, 2, 0, 1]
    probability = {0: 4 / 9, 1: 2 / 9, 2: 1 / 9, 3: 2 / 9}  # each token once more than it occurs, of four
    expected = -sum(math.log(probability[token]) for token in test[1:]) / 4
    assert unigram(written(tmp_path / "train", train), written(tmp_path / "test", test), 4) == pytest.approx(expected)


def test_unigram_counts_a_file_of_several_portions_whole(tmp_path):
    """Five million tokens, of which the last alone are 7, are more than are counted at once."""
    train = np.arange(5_000_000, dtype=np.uint8) % 5
    train[-1000:] = 7
    counts = np.unique(np.append(train, np.arange(9)), return_counts=True)[1]
    found = unigram(written(tmp_path / "train", train), written(tmp_path / "test", [8, 7, 7, 0]), 9)
    expected = -np.log(counts[[7, 7, 0]] / counts.sum()).mean()
    assert found == pytest.approx(float(expected), rel=1e-12)
