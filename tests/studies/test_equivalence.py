"""Two one-sided tests against scipy's, and what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xformer.studies.equivalence import equivalence_interval, equivalence_p
from xformer.studies.statistics import PairedComparison, paired_comparison

REPEATS = 2000


@pytest.mark.parametrize("seed", range(5))
def test_the_p_value_is_the_larger_of_scipys_two(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.1, 0.3, 6)
    found = paired_comparison(list(differences), [0.0] * 6)
    assert found
    above = stats.ttest_1samp(differences, -0.5, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, 0.5, alternative="less").pvalue
    assert equivalence_p(found, 0.5) == pytest.approx(max(above, below))


def test_lakens_example() -> None:
    # Lakens (2017), as TOSTER's `TOSTpaired.raw` computes it: t = (d + bound) / SE with n - 1 degrees of freedom.
    found = PairedComparison(0.5, 0.4, 30)
    assert equivalence_p(found, 1.5) == pytest.approx(stats.t.sf((1.5 - 0.5) / 0.4, 29))
    assert equivalence_p(PairedComparison(-0.5, 0.4, 30), 1.5) == equivalence_p(found, 1.5)
    assert equivalence_p(found, 0.5) == pytest.approx(0.5)
    assert equivalence_p(found, 0.1) > 0.5


@given(st.floats(-2, 2), st.floats(1e-3, 3), st.integers(2, 30), st.floats(1e-3, 3), st.floats(1e-3, 0.4))
def test_equivalent_if_and_only_if_the_interval_is_within_the_margin(
    mean: float, error: float, pairs: int, margin: float, alpha: float
) -> None:
    found = PairedComparison(mean, error, pairs)
    between = equivalence_interval(found, alpha)
    assert between
    p = equivalence_p(found, margin)
    if abs(p - alpha) > 1e-9:
        assert (p < alpha) == (-margin < between.low and between.high < margin)


@pytest.mark.parametrize(("pairs", "p"), [(3, 1 / 8), (5, 1 / 32)])
def test_differences_that_are_one_number_are_tested_by_their_signs(pairs: int, p: float) -> None:
    inside, outside = PairedComparison(0.01, 0.0, pairs), PairedComparison(0.02, 0.0, pairs)
    assert equivalence_p(inside, 0.02) == p
    assert equivalence_p(outside, 0.02) == 1.0
    assert (equivalence_interval(inside, 0.05) is not None) == (p <= 0.05)


@pytest.mark.parametrize("pairs", [3, 5, 10, 20])
def test_a_pair_at_the_margin_is_called_equivalent_in_5_of_100_cases_at_most(pairs: int) -> None:
    drawn = np.random.default_rng(0).normal(1.0, 0.1, (REPEATS, pairs))
    called = [equivalence_p(PairedComparison(*each, pairs), 1.0) <= 0.05 for each in _summaries(drawn)]
    assert np.mean(called) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPEATS)


@pytest.mark.parametrize("pairs", [3, 5, 10, 20])
def test_an_equal_pair_is_called_equivalent_at_the_rate_of_the_t_distribution(pairs: int) -> None:
    drawn = np.random.default_rng(1).normal(0.0, 1.0, (REPEATS, pairs))
    margin = 2.0
    called = np.mean([equivalence_p(PairedComparison(*each, pairs), margin) <= 0.05 for each in _summaries(drawn)])
    theirs = np.mean([
        max(stats.ttest_1samp(each, -margin, alternative="greater").pvalue,
            stats.ttest_1samp(each, margin, alternative="less").pvalue) <= 0.05
        for each in drawn[:500]
    ])  # fmt: skip
    assert abs(called - theirs) <= 3 * math.sqrt(0.25 / 500)


def _summaries(drawn: np.ndarray) -> list[tuple[float, float]]:
    errors = drawn.std(1, ddof=1) / math.sqrt(drawn.shape[1])
    return list(zip(drawn.mean(1).tolist(), errors.tolist(), strict=True))
