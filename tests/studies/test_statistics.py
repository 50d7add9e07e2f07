"""Statistics against known answers."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xformer.studies import statistics
from xformer.studies.simultaneous import holm_levels
from xformer.studies.statistics import (
    ALPHA,
    Interval,
    confidence_interval,
    holm_correction,
    paired_comparison,
    verdict,
)

REPEATS = 1000


def _at_most(rate: float, repeats: int = REPEATS) -> float:
    """Three standard errors above a rate."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / repeats)


def _called_different(groups: np.ndarray) -> bool:
    """Whether any group is called better or worse than the first."""
    tests = [paired_comparison(list(group), list(groups[0])) for group in groups[1:]]
    adjusted = holm_correction([test.p for test in tests if test])
    reasons = [verdict(t.mean, p, "max") for t, p in zip(tests, adjusted, strict=True) if t]
    return any(word != "no difference shown" for word in reasons)


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


@pytest.mark.parametrize(
    ("law", "promised"),
    [
        ("normal", [95, 95, 95, 95, 95]),
        ("uniform", [92, 93, 95, 95, 95]),
        ("exponential", [89, 88, 90, 92, 93]),
        ("log-normal", [84, 82, 84, 87, 88]),
    ],
)
def test_intervals_hold_the_mean_as_often_as_the_docstring_says(law: str, promised: list[int]) -> None:
    line = next(line for line in (statistics.__doc__ or "").splitlines() if line.strip().startswith(law))
    assert line.split()[1:] == list(map(str, promised))
    generator, repeats = np.random.default_rng(2), 2500
    for count, percent in zip((3, 5, 10, 20, 30), promised, strict=True):
        size = repeats, count
        values = {
            "normal": lambda size: generator.normal(1.0, 0.3, size),
            "uniform": lambda size: generator.uniform(0.0, 2.0, size),
            "exponential": lambda size: generator.exponential(1.0, size),
            "log-normal": lambda size: generator.lognormal(0.0, 1.0, size) / math.exp(0.5),
        }[law](size)
        found = [confidence_interval(list(row)) for row in values]
        held = sum(each is not None and each.low <= 1.0 <= each.high for each in found) / repeats
        assert abs(held - percent / 100) <= 0.005 + 3 * math.sqrt(held * (1 - held) / repeats)


@pytest.mark.parametrize("count", [2, 4, 15])
def test_intervals_are_scipys(count: int) -> None:
    values = np.random.default_rng(4).normal(size=count)
    found, theirs = confidence_interval(list(values)), stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found
    assert (found.low, found.high) == pytest.approx(tuple(theirs))


def test_one_value_has_no_interval_and_equal_values_an_empty_one() -> None:
    assert confidence_interval([0.5]) is None
    assert confidence_interval([]) is None
    for count in (3, 12):
        found = confidence_interval([0.5] * count)
        assert found
        assert (found.low, found.high) == (0.5, 0.5)


def test_values_that_differ_in_the_last_bit_have_an_interval() -> None:
    values = [0.3] * 11 + [0.1 + 0.2]
    found = confidence_interval(values)
    assert found
    assert (found.low, found.high) == (min(values), max(values))


def test_a_paired_difference_is_scipys_and_drops_what_seeds_do_to_both() -> None:
    base, other = [0.1, 0.5, 0.9], [0.12, 0.515, 0.921]
    found, reference = paired_comparison(other, base), stats.ttest_rel(other, base)
    assert found
    assert found.p == pytest.approx(reference.pvalue)
    between = found.interval()
    assert between
    assert (between.low, between.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.p < 0.01 < 0.9 < stats.ttest_ind(other, base).pvalue
    assert paired_comparison([0.1], [0.2]) is None


@pytest.mark.parametrize(("count", "p"), [(2, 0.5), (3, 0.25), (6, 1 / 32)])
def test_differences_that_are_one_number_are_tested_by_their_signs(count: int, p: float) -> None:
    base = list(np.linspace(0.3, 0.6, count))
    found = paired_comparison([value + 0.125 for value in base], base)
    assert found
    assert found.p == p
    same = paired_comparison(base, base)
    assert same
    assert (same.mean, same.p) == (0.0, 1.0)
    assert (found.test, found.interval()) == ("signs", Interval(0.125, 0.125) if p <= ALPHA else None)
    exact = stats.permutation_test(
        (np.full(count, 0.125), np.zeros(count)), lambda x, y: np.mean(x - y), permutation_type="samples"
    )
    assert exact.pvalue == pytest.approx(p)


VALUES = st.floats(-100, 100).map(lambda value: round(value, 3))
SAMPLES = st.one_of(
    st.lists(VALUES, min_size=2, max_size=12),
    st.tuples(VALUES, st.integers(2, 12)).map(lambda drawn: [drawn[0]] * drawn[1]),
    st.tuples(VALUES, st.integers(2, 12)).map(lambda drawn: [drawn[0]] * (drawn[1] - 1) + [drawn[0] + 1e-9]),
    # Differences like those of runs: small beside what they are of, most of one sign.
    st.tuples(st.floats(0, 5), st.integers(0, 99), st.integers(2, 12)).map(
        lambda drawn: list(np.random.default_rng(drawn[1]).normal(drawn[0], 1.0, drawn[2]))
    ),
)


@given(st.lists(SAMPLES, min_size=1, max_size=6), st.sampled_from([0.0, 0.5, 1e3]))
def test_verdict_interval_and_p_agree(samples: list[list[float]], base: float) -> None:
    tests = [paired_comparison([base + each for each in sample], [base] * len(sample)) for sample in samples]
    kept = [test for test in tests if test]
    corrected = holm_correction([test.p for test in kept])
    levels = holm_levels([test.p for test in kept])
    for test, p, level in zip(kept, corrected, levels, strict=True):
        between = test.interval(level)
        shown = verdict(test.mean, p, "max") != "no difference shown"
        assert shown == (p <= ALPHA)
        assert shown == (between is not None and not between.low <= 0 <= between.high)
        if between:
            assert between.low <= test.mean <= between.high
            assert between.level >= 1 - ALPHA - 1e-12


def test_holm_by_hand() -> None:
    # The example of Holm's step-down: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, each at least the one before.
    assert holm_correction([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm_correction([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm_correction(p_values)
    for raw, corrected in zip(p_values, adjusted, strict=True):
        assert raw <= corrected <= min(1.0, len(p_values) * raw)
    assert all(a <= b for a, b in pairwise(x for _, x in sorted(zip(p_values, adjusted, strict=True))))


def test_the_verdict_follows_the_direction() -> None:
    assert verdict(0.1, 0.01, "max") == verdict(-0.1, 0.01, "min") == "better"
    assert verdict(0.1, 0.01, "min") == verdict(-0.1, 0.05, "max") == "worse"
    assert verdict(0.1, 0.051, "max") == "no difference shown"
