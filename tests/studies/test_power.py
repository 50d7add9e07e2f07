"""Power and numbers of seeds against the noncentral t distribution, another library, and simulation."""

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from xformer.studies import power as module
from xformer.studies.power import minimum_detectable_difference, required_seeds, t_test_power

REPEATS = 2000


@pytest.mark.parametrize("pairs", [2, 3, 5, 20, 1000])
@pytest.mark.parametrize("effect", [0.0, 0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_power_is_that_of_the_noncentral_t_distribution(pairs: int, effect: float, alpha: float) -> None:
    critical, shift = stats.t.ppf(1 - alpha / 2, pairs - 1), effect * math.sqrt(pairs)
    below = np.nan_to_num(stats.nct.cdf(-critical, pairs - 1, shift))  # nan where it is nothing
    theirs = np.nan_to_num(stats.nct.sf(critical, pairs - 1, shift), nan=1.0) + below
    assert t_test_power(effect, pairs, alpha) == pytest.approx(theirs, abs=5e-4)


# TTestPower().solve_power(nobs=..., alpha=..., power=0.8) of statsmodels 0.14
@pytest.mark.parametrize(
    ("pairs", "alpha", "effect"),
    [(3, 0.05, 3.264043552819638), (5, 0.05, 1.6819970833232674), (10, 0.0125, 1.2842966), (20, 0.05, 0.66044165)],
)
def test_power_is_that_of_statsmodels(pairs: int, alpha: float, effect: float) -> None:
    assert t_test_power(effect, pairs, alpha) == pytest.approx(0.8, abs=1e-4)
    assert t_test_power(-effect, pairs, alpha) == t_test_power(effect, pairs, alpha)


def test_a_known_spread_promises_more_than_an_estimated_one() -> None:
    text = " ".join((module.__doc__ or "").split())
    assert "is 58 % with 2 seeds, 63 with 3, 69 with 5, 74 with 10, 77 with 20" in text
    for pairs, percent in zip((2, 3, 5, 10, 20), (58, 63, 69, 74, 77), strict=True):
        known = optimize.brentq(lambda effect, pairs=pairs: t_test_power(effect, pairs, 0.05) - 0.8, 0.1, 30)
        assert 100 * t_test_power(known, pairs, 0.05, pairs - 1) == pytest.approx(percent, abs=0.6)
        assert minimum_detectable_difference(1.0, pairs, 0.05) > known


@pytest.mark.parametrize("pairs", [2, 3, 5, 10, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_the_smallest_difference_is_shown_by_80_of_100_repeats(pairs: int, alpha: float) -> None:
    generator = np.random.default_rng(0)
    first = generator.standard_normal((REPEATS, pairs)).std(1, ddof=1)
    true = np.array([minimum_detectable_difference(deviation, pairs, alpha) for deviation in first])
    again = generator.standard_normal((REPEATS, pairs)) + true[:, None]
    shown = np.mean(stats.ttest_1samp(again, 0.0, axis=1).pvalue <= alpha)
    assert abs(shown - 0.8) < 3 * math.sqrt(0.16 / REPEATS)


@pytest.mark.parametrize(("pairs", "effect"), [(3, 1.0), (5, 1.0), (10, 0.5)])
def test_the_seeds_asked_for_show_the_difference_as_often_as_wanted_or_more(pairs: int, effect: float) -> None:
    """What the estimates of the spread leave open is in the number, which is therefore larger than one would think."""
    estimates = np.sqrt(stats.chi2.ppf((np.arange(50) + 0.5) / 50, pairs - 1) / (pairs - 1))
    needed = [required_seeds(effect, deviation, pairs, 0.05) or 1000 for deviation in estimates]
    assert np.mean([t_test_power(effect, seeds, 0.05) for seeds in needed]) >= 0.8


def test_the_number_of_seeds_is_the_first_with_that_power() -> None:
    for difference, deviation, pairs, alpha in ((0.01, 0.012, 5, 0.05), (-0.3, 0.3, 3, 0.0125), (1.0, 2.0, 20, 0.05)):
        found = required_seeds(difference, deviation, pairs, alpha)
        assert found
        effect = abs(difference) / deviation
        assert t_test_power(effect, found, alpha, pairs - 1) >= 0.8 > t_test_power(effect, found - 1, alpha, pairs - 1)


def test_what_no_number_of_seeds_shows_is_none() -> None:
    assert required_seeds(0.0, 1.0, 5, 0.05) is None
    assert required_seeds(1e-6, 1.0, 5, 0.05) is None


def test_the_quadrature_is_of_the_distribution_of_a_standard_deviation() -> None:
    quantiles, weights = module._spread(4), module._WEIGHTS
    expected = math.sqrt(2 / 4) * special.gamma(5 / 2) / special.gamma(2)  # of s / sigma with 4 degrees of freedom
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ quantiles == pytest.approx(expected, rel=1e-4)
    assert weights @ quantiles**2 == pytest.approx(1.0, rel=1e-3)
