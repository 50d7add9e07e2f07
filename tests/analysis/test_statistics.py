"""Statistics against known answers."""

import math
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xformer.analysis.statistics import ALPHA, holm, interval, paired, verdict

REPEATS = 1000


def _at_most(rate: float, repeats: int = REPEATS) -> float:
    """Three standard errors above a rate."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / repeats)


def _called_different(groups: np.ndarray) -> bool:
    """Whether any group is called better or worse than the first."""
    tests = [paired(list(group), list(groups[0])) for group in groups[1:]]
    adjusted = holm([test.p for test in tests if test])
    said = [verdict(t.mean, p, "max") for t, p in zip(tests, adjusted, strict=True) if t]
    return any(word != "no difference shown" for word in said)


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_true_difference_is_found_at_the_rate_that_the_t_distribution_promises(seeds: int) -> None:
    generator, effect = np.random.default_rng(0), 2.0  # in standard deviations of the paired difference
    critical = stats.t.ppf(1 - ALPHA / 2, seeds - 1)
    shift = effect * math.sqrt(seeds)
    promised = stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)
    found = 0
    for _ in range(REPEATS):
        base = generator.normal(0.5, 0.1, seeds)
        other = base + generator.normal(effect * 0.01, 0.01, seeds)
        found += _called_different(np.stack([base, other]))
    assert abs(found / REPEATS - promised) < 3 * math.sqrt(promised * (1 - promised) / REPEATS)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("examples", [None, 64], ids=["continuous", "accuracies of 64 examples"])
def test_equal_settings_are_called_different_in_at_most_one_table_of_twenty(seeds: int, examples: int | None) -> None:
    generator, wrong = np.random.default_rng(1), 0
    for _ in range(REPEATS):
        shared = generator.normal(0.5, 0.03, seeds)  # what a seed does to every group
        groups = shared + generator.normal(0.0, 0.02, (5, seeds))
        if examples:
            groups = generator.binomial(examples, groups.clip(0, 1)) / examples
        wrong += _called_different(groups)
    assert wrong / REPEATS <= _at_most(0.05)


@pytest.mark.parametrize(("count", "law"), [(3, "normal"), (5, "normal"), (12, "normal"), (30, "exponential")])
def test_intervals_hold_the_truth_as_often_as_they_say(count: int, law: str) -> None:
    generator, repeats = np.random.default_rng(2), 100 if count >= 10 else 300
    held = 0
    for _ in range(repeats):
        values = generator.normal(1.0, 0.3, count) if law == "normal" else generator.exponential(1.0, count)
        found = interval(list(values))
        assert found
        held += found.low <= 1.0 <= found.high
    # The bootstrap is exact only for many values: 0.92 is what BCa reaches at 12.
    assert held / repeats >= (0.95 if count < 10 else 0.92) - 3 * math.sqrt(0.95 * 0.05 / repeats)


def test_a_bootstrap_of_three_values_would_promise_too_much() -> None:
    generator, held = np.random.default_rng(3), 0
    for _ in range(100):
        found = interval(list(generator.normal(0.0, 1.0, 3)), "bootstrap")
        assert found
        held += found.low <= 0.0 <= found.high
    assert held < 85


def test_intervals_are_scipys() -> None:
    few, many = [0.31, 0.35, 0.33, 0.40], list(np.random.default_rng(4).normal(size=15))
    found = interval(few)
    assert found
    error = stats.sem(few) * stats.t.ppf(0.975, 3)
    assert (found.low, found.high) == pytest.approx((np.mean(few) - error, np.mean(few) + error))
    found = interval(many)
    drawn = stats.bootstrap((many,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0))
    assert found
    assert (found.low, found.high, found.method) == (*drawn.confidence_interval, "bootstrap")


def test_one_value_has_no_interval_and_equal_values_an_empty_one() -> None:
    assert interval([0.5]) is None
    assert interval([]) is None
    for count in (3, 12):
        found = interval([0.5] * count)
        assert found
        assert (found.low, found.high) == (0.5, 0.5)


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_values_that_differ_in_the_last_bit_have_an_interval(method: Literal["t", "bootstrap"]) -> None:
    values = [0.3] * 11 + [0.1 + 0.2]
    found = interval(values, method)
    assert found
    assert (found.low, found.high) == (min(values), max(values))


def test_a_paired_difference_is_scipys_and_drops_what_seeds_do_to_both() -> None:
    base, other = [0.1, 0.5, 0.9], [0.12, 0.515, 0.921]
    found, reference = paired(other, base), stats.ttest_rel(other, base)
    assert found
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.p < 0.01 < 0.9 < stats.ttest_ind(other, base).pvalue
    assert paired([0.1], [0.2]) is None


@pytest.mark.parametrize(("count", "p"), [(2, 0.5), (3, 0.25), (6, 1 / 32)])
def test_differences_that_are_one_number_are_tested_by_their_signs(count: int, p: float) -> None:
    base = list(np.linspace(0.3, 0.6, count))
    found = paired([value + 0.125 for value in base], base)
    assert found
    assert found.p == p
    same = paired(base, base)
    assert same
    assert (same.mean, same.p) == (0.0, 1.0)
    exact = stats.permutation_test(
        (np.full(count, 0.125), np.zeros(count)), lambda x, y: np.mean(x - y), permutation_type="samples"
    )
    assert exact.pvalue == pytest.approx(p)


def test_holm_by_hand() -> None:
    # The example of Holm's step-down: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, each at least the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, corrected in zip(p_values, adjusted, strict=True):
        assert raw <= corrected <= min(1.0, len(p_values) * raw)
    assert all(a <= b for a, b in pairwise(x for _, x in sorted(zip(p_values, adjusted, strict=True))))


def test_the_verdict_follows_the_direction() -> None:
    assert verdict(0.1, 0.01, "max") == verdict(-0.1, 0.01, "min") == "better"
    assert verdict(0.1, 0.01, "min") == verdict(-0.1, 0.05, "max") == "worse"
    assert verdict(0.1, 0.051, "max") == "no difference shown"
