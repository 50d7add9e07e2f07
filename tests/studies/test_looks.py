"""Looks at a comparison before its end: boundaries against published ones, error rates by simulation."""

import math
import re

import numpy as np
import pytest
from scipy import special, stats

from xformer.studies import looks as module
from xformer.studies.looks import (
    SpendingFunction,
    alpha_spent,
    nominal_levels,
    normal_levels,
    repeated_p,
    undeclared_error,
)

REPEATS = 2000
SPENDINGS: tuple[SpendingFunction, ...] = ("obrien_fleming", "pocock")


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        # Two-sided, alpha 0.05, five equal looks: Reboussin, DeMets, Kim and Lan (2000), as `ldbounds` prints them.
        ("obrien_fleming", [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
        ("pocock", [2.4380, 2.4268, 2.4101, 2.3966, 2.3859]),
    ],
)
def test_boundaries_are_the_published_ones(spending: SpendingFunction, published: list[float]) -> None:
    found = [-special.ndtri(level / 2) for level in normal_levels([1, 2, 3, 4, 5], 0.05, spending)]
    assert found == pytest.approx(published, abs=2e-4)


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_the_error_is_spent_to_the_end_and_not_before(spending: SpendingFunction, alpha: float) -> None:
    shares = np.linspace(0.05, 1, 20)
    values = [alpha_spent(share, alpha, spending) for share in shares]
    assert values[-1] == pytest.approx(alpha)
    assert np.all(np.diff(values) > 0)
    assert nominal_levels([7], alpha, spending) == [alpha]


LOOKS = [(3, 5), (3, 6, 10), (5, 10, 20), (3, 4, 5, 6, 7, 8, 9, 10), (2, 3, 4), (10, 20)]


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("looks", LOOKS, ids=str)
@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_declared_looks_hold_their_level_with_t_statistics(
    looks: tuple[int, ...], spending: SpendingFunction, alpha: float
) -> None:
    repeats = 50_000
    called = _called(looks, nominal_levels(looks, alpha, spending), "normal", repeats)
    assert called <= 1.04 * alpha + 3 * math.sqrt(alpha / repeats)
    assert called >= 0.92 * alpha - 3 * math.sqrt(alpha / repeats)


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("looks", LOOKS, ids=str)
@pytest.mark.parametrize("law", ["exponential", "beta"])
def test_and_with_equal_settings_of_skewed_and_bounded_metrics(
    looks: tuple[int, ...], spending: SpendingFunction, law: str
) -> None:
    called = _called(looks, nominal_levels(looks, 0.05, spending), law, REPEATS)
    assert called <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPEATS)


def _called(looks: tuple[int, ...], levels: list[float], law: str, repeats: int) -> float:
    """How often a pair of one law is called different, at one look at least."""
    generator, size = np.random.default_rng(5), (2, repeats, looks[-1])
    values = {
        "normal": lambda: generator.normal(size=size),
        "exponential": lambda: generator.exponential(size=size),
        "beta": lambda: generator.beta(9, 1, size=size),
    }[law]()
    apart, called = values[0] - values[1], np.zeros(repeats, dtype=bool)
    for look, level in zip(looks, levels, strict=True):
        t = apart[:, :look].mean(1) / apart[:, :look].std(1, ddof=1) * math.sqrt(look)
        called |= 2 * special.stdtr(look - 1, -np.abs(t)) <= level
    return float(called.mean())


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("looks", [(3, 6, 10), (5, 20)], ids=str)
def test_a_repeated_p_value_is_below_alpha_if_and_only_if_the_look_refuses(
    looks: tuple[int, ...], spending: SpendingFunction
) -> None:
    for alpha in (0.05, 0.01):
        for look, level in enumerate(nominal_levels(looks, alpha, spending)):
            assert repeated_p(level * 0.999, look, looks, spending) <= alpha
            assert repeated_p(level * 1.001, look, looks, spending) > alpha
    grid = np.linspace(0.001, 1, 6)
    for look in range(len(looks)):
        values = [repeated_p(p, look, looks, spending) for p in grid]
        assert np.all(np.diff(values) >= 0)
        assert np.all(np.array(values) >= grid)
        assert values[-1] == 1.0
    assert repeated_p(0.3, 0, [4], spending) == 0.3


def test_power_of_the_last_look_is_almost_that_of_one_look() -> None:
    generator, looks = np.random.default_rng(2), (3, 6, 10)
    drawn = generator.normal(1.0, 1.0, (REPEATS, 10))
    p = stats.ttest_1samp(drawn, 0.0, axis=1).pvalue
    once, last = np.mean(p <= 0.05), np.mean(p <= nominal_levels(looks)[-1])
    assert once - last < 0.03


def test_undeclared_looks_are_wrong_as_often_as_the_docstring_says() -> None:
    found = {}
    for text, percent in re.findall(
        r"^ {6}((?:\d+, )+\d+|each from \d+ to \d+) +([\d.]+) %$", module.__doc__ or "", re.M
    ):
        numbers = list(map(int, re.findall(r"\d+", text)))
        found[text] = range(numbers[0], numbers[1] + 1) if text.startswith("each") else numbers, float(percent)
    assert len(found) == 7
    for looks, percent in found.values():
        assert 100 * undeclared_error(looks) == pytest.approx(percent, abs=0.1)
        assert 100 * _called(tuple(looks), [0.05] * len(looks), "normal", 20_000) == pytest.approx(percent, abs=0.8)


def test_one_look_is_wrong_as_often_as_it_says() -> None:
    assert undeclared_error([5]) == pytest.approx(0.05, abs=0.002)
