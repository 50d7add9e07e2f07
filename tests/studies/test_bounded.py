"""Intervals inside the bounds of a metric: what they hold, and how often."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from xformer.studies import bounded
from xformer.studies.bounded import FRACTION, NON_NEGATIVE, UNBOUNDED, Bounds, bounded_interval
from xformer.studies.statistics import Interval, confidence_interval

REPEATS = 2000
SEEDS = (3, 5, 10, 20)


def _or_fails(share: float) -> Callable[..., np.ndarray]:
    return lambda g, size: np.where(g.random(size) < share, 0.3, 0.99) + g.normal(0, 0.003, size)


LAWS: dict[str, tuple[Bounds, float, Callable[..., np.ndarray]]] = {
    "accuracies, beta(90, 10)": (FRACTION, 0.9, lambda g, size: g.beta(90, 10, size)),
    "accuracies near a bound, beta(9, 1)": (FRACTION, 0.9, lambda g, size: g.beta(9, 1, size)),
    "of 64 examples, true accuracy 0.95": (FRACTION, 0.95, lambda g, size: g.binomial(64, 0.95, size) / 64),
    "0.99, or 0.30 in every second seed": (FRACTION, 0.645, _or_fails(0.5)),
    "0.99, or 0.30 in every fifth seed": (FRACTION, 0.852, _or_fails(0.2)),
    "losses, log-normal of sigma 0.3": (NON_NEGATIVE, math.exp(0.045), lambda g, size: g.lognormal(0, 0.3, size)),
    "losses, exponential": (NON_NEGATIVE, 1.0, lambda g, size: g.exponential(1, size)),
    "losses, log-normal of sigma 1": (NON_NEGATIVE, math.exp(0.5), lambda g, size: g.lognormal(0, 1, size)),
}


@pytest.mark.parametrize("law", LAWS)
def test_intervals_hold_the_mean_as_often_as_the_docstring_says(law: str) -> None:
    line = next(line for line in (bounded.__doc__ or "").splitlines() if line.strip().startswith(law))
    said = [(int(own), int(plain)) for own, plain in re.findall(r"(\d+) \((\d+)\)", line)]
    limits, mean, draw = LAWS[law]
    generator = np.random.default_rng(0)
    for count, percents in zip(SEEDS, said, strict=True):
        drawn = draw(generator, (REPEATS, count)).clip(limits.low, limits.high).tolist()
        methods = (
            [bounded_interval(values, limits) for values in drawn],
            [confidence_interval(values) for values in drawn],
        )
        for found, percent in zip(methods, percents, strict=True):
            held = np.mean([each is not None and each.low <= mean <= each.high for each in found])
            assert abs(held - percent / 100) <= 0.005 + 3 * math.sqrt(held * (1 - held) / REPEATS)


FRACTIONS = st.lists(st.floats(0, 1).map(lambda value: round(value, 4)), min_size=2, max_size=12)


@given(FRACTIONS)
def test_an_interval_is_within_its_bounds_and_holds_the_mean_of_the_values(values: list[float]) -> None:
    for limits in (FRACTION, NON_NEGATIVE):
        found = bounded_interval(values, limits)
        assert found
        mean = sum(values) / len(values)
        assert limits.low <= found.low <= mean + 1e-12
        assert mean - 1e-12 <= found.high <= limits.high


def test_the_interval_is_students_on_the_scale_without_bounds() -> None:
    values = [0.7, 0.8, 0.95]
    mean, student = float(np.mean(values)), confidence_interval(values)
    reach = special.stdtrit(2, 0.975) * np.std(values, ddof=1) / math.sqrt(3)
    assert student
    assert student.high > 1
    found = bounded_interval(values, FRACTION)
    slope = 1 / (mean * (1 - mean))  # of the logit
    assert found
    expected = special.expit(special.logit(mean) + slope * reach * np.array([-1, 1]))
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    found = bounded_interval(values, NON_NEGATIVE)
    assert found
    assert (found.low, found.high) == pytest.approx((mean * math.exp(-reach / mean), mean * math.exp(reach / mean)))


def test_far_from_a_bound_it_is_students() -> None:
    values = list(np.random.default_rng(0).normal(1.8, 0.002, 5))
    found, student = bounded_interval(values, NON_NEGATIVE), confidence_interval(values)
    assert found
    assert student
    assert (found.low, found.high) == pytest.approx((student.low, student.high), abs=1e-4)


def test_what_has_no_bounds_or_does_not_keep_them_has_students() -> None:
    assert bounded_interval([0.2, 0.9], UNBOUNDED) == confidence_interval([0.2, 0.9])
    assert bounded_interval([0.2, 1.9], FRACTION) == confidence_interval([0.2, 1.9])
    assert bounded_interval([0.2], FRACTION) is None


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_values_that_are_one_number_have_an_empty_interval(value: float) -> None:
    found = bounded_interval([value] * 4, FRACTION)
    assert found
    assert (found.low, found.high) == pytest.approx((value, value))


def test_a_difference_is_cut_at_its_bounds() -> None:
    assert Bounds(-1.0, 1.0).clip(Interval(-1.05, -0.25, 0.98)) == Interval(-1.0, -0.25, 0.98)
