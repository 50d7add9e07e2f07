"""Intervals, paired tests and their correction for many comparisons.

What is assumed and promised:

- The interval of a mean is a BCa bootstrap (Efron 1987, `scipy.stats.bootstrap`, 9,999 resamples, fixed generator)
  from 10 values on. With fewer, resampling knows too little of the spread: at 3 values a bootstrap interval that says
  95 % holds the truth about 70 times in 100. There it is Student's t interval, exact for normal values. One value has
  no interval.
- A difference is taken within seeds, because runs of one seed share initial weights and batches, and tested by the
  paired t test (as `scipy.stats.ttest_rel`), two-sided; its interval is that test's and is not corrected. It assumes
  that the differences are about normal. A permutation test would not, but with 3 seeds its smallest p value is 0.25.
- Differences that are all the same number have no spread to test against, as happens with few test examples. Their p
  value is that of the sign-flip permutation test, 2 / 2^n, or 1 where the number is zero.
- Fewer than 2 common seeds are never a difference.
- p values of one table are corrected together by Holm (1979): the chance to call any equal pair different is at most
  5 %, whatever the dependence between the tests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special, stats

LEVEL = 0.95
ALPHA = 1 - LEVEL
_FEW = 10
_RESAMPLES = 9999

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and the method it comes from."""

    low: float
    high: float
    method: Literal["t", "bootstrap"]


@dataclass(frozen=True)
class Paired:
    """The mean difference over common seeds, its interval and the p value of `no difference`."""

    mean: float
    low: float
    high: float
    p: float
    pairs: int


def interval(values: Sequence[float], method: Literal["auto", "t", "bootstrap"] = "auto") -> Interval | None:
    """A 95 % interval of the mean; None for fewer than two values.

    Args:
        values: one per seed.
        method: `auto` is Student's t below 10 values and the BCa bootstrap from there on.
    """
    if len(values) < 2:
        return None
    chosen: Literal["t", "bootstrap"] = ("t" if len(values) < _FEW else "bootstrap") if method == "auto" else method
    if _all_the_same(values, max(map(abs, values))):
        return Interval(min(values), max(values), chosen)
    if chosen == "t":
        found = stats.ttest_1samp(values, 0.0).confidence_interval(LEVEL)
        return Interval(float(found.low), float(found.high), chosen)
    generator = np.random.default_rng(0)
    drawn = stats.bootstrap((values,), np.mean, confidence_level=LEVEL, n_resamples=_RESAMPLES, rng=generator)
    return Interval(float(drawn.confidence_interval.low), float(drawn.confidence_interval.high), chosen)


def paired(values: Sequence[float], others: Sequence[float]) -> Paired | None:
    """The difference `values - others`, pair by pair; None for fewer than two pairs."""
    differences = [value - other for value, other in zip(values, others, strict=True)]
    count = len(differences)
    if count < 2:
        return None
    scale = max(map(abs, [*values, *others]))
    if _all_the_same(differences, scale):
        mean = differences[0] if abs(differences[0]) > 1e-12 * scale else 0.0
        return Paired(mean, mean, mean, 2.0 ** (1 - count) if mean else 1.0, count)
    mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1)) / math.sqrt(count)
    reach = error * float(special.stdtrit(count - 1, 1 - ALPHA / 2))
    p = 2 * float(special.stdtr(count - 1, -abs(mean) / error))
    return Paired(mean, mean - reach, mean + reach, p, count)


def _all_the_same(values: Sequence[float], scale: float) -> bool:
    """The same number, but for the last bit of the numbers it comes from."""
    return bool(max(values) - min(values) <= 1e-12 * scale)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given: each is compared with 0.05 itself (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def verdict(difference: float, p: float, mode: Mode) -> Literal["better", "worse", "no difference shown"]:
    """In words, from a corrected p value."""
    if p > ALPHA:
        return "no difference shown"
    return "better" if (difference > 0) == (mode == "max") else "worse"
