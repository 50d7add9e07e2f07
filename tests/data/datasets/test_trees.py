import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.datasets.listops_reader import FUNCTIONS, depth_of, value_of, words_of
from xformer.data.datasets import trees


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[MIN 4 2 9 ]", 2),
        ("[MAX 4 2 9 ]", 9),
        ("[MED 4 2 9 ]", 4),
        ("[MED 1 2 ]", 1),
        ("[MED 9 0 4 7 ]", 5),
        ("[SM 4 2 9 ]", 5),
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[SM [MAX 1 8 ] [MED 3 [SM 9 9 ] 5 ] 6 ]", 9),
    ],
)
def test_the_independent_reader_reads_hand_written_trees(text, value):
    assert value_of(text.split()) == value


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), min_size=2, max_size=10)), max_size=8))
def test_operators_agree_with_python(calls):
    functions = list(FUNCTIONS.values())
    result = trees.apply(
        np.array([operator for operator, _ in calls], dtype=np.int64),
        np.array([value for _, values in calls for value in values], dtype=np.int64),
        np.array([len(values) for _, values in calls], dtype=np.int64),
    )
    assert result.tolist() == [functions[operator](values) for operator, values in calls]


@pytest.mark.parametrize(
    ("max_depth", "max_args", "min_length", "max_length"), [(2, 2, 1, 5), (6, 5, 20, 128), (10, 10, 1, 3000)]
)
def test_labels_are_the_values_and_bounds_hold(max_depth, max_args, min_length, max_length):
    found = trees.expressions(np.random.default_rng(5), 500, max_depth, max_args, min_length, max_length)
    assert len(found.values) > 50
    for tokens, value in zip(np.split(found.tokens, np.cumsum(found.lengths)[:-1]), found.values, strict=True):
        words = words_of(tokens)
        assert value_of(words) == value
        assert min_length < len(words) < max_length
        assert depth_of(words) <= max_depth


def test_the_distribution_is_that_of_a_plain_recursive_generator():
    rng = random.Random(0)

    def tree(depth: int) -> list[str]:
        if depth >= 6 or rng.random() > 0.25:
            return [str(rng.randrange(10))]
        arguments = [tree(depth + 1) for _ in range(rng.randint(2, 5))]
        return [rng.choice(list(FUNCTIONS)), *(word for argument in arguments for word in argument), "]"]

    plain: list[list[str]] = []
    while len(plain) < 3000:
        words = tree(1)
        if 20 < len(words) < 128:
            plain.append(words)
    found = trees.expressions(np.random.default_rng(0), 40_000, 6, 5, 20, 128)
    assert len(found.values) > 10_000
    assert found.lengths.mean() == pytest.approx(np.mean([len(words) for words in plain]), abs=1.5)
    assert found.lengths.std() == pytest.approx(np.std([len(words) for words in plain]), abs=1.5)
    ours = np.bincount(found.tokens, minlength=16) / len(found.tokens)
    counts = Counter(word for words in plain for word in words)
    theirs = [counts[symbol] / counts.total() for symbol in trees.SYMBOLS]
    np.testing.assert_allclose(ours, theirs, atol=0.004)
    values = np.bincount([value_of(words) for words in plain], minlength=10) / len(plain)
    np.testing.assert_allclose(np.bincount(found.values, minlength=10) / len(found.values), values, atol=0.025)
