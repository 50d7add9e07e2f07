"""Simultaneous confidence intervals of several differences, consistent with Holm's verdicts.

Holm tests the smallest of m p values at 0.05 / m, the next at 0.05 / (m - 1), and so on to the first that it does not
reject; all others are tested at the level of that one. The interval at the level of its own test (`holm_levels`)
covers its difference in 95 of 100 tables or more, and contains zero if and only if no difference is shown. All
intervals of a table hold at once less often: with m true differences that are all shown, in
1 - 0.05 (1 + 1/2 + ... + 1/m) of tables at worst, 90 % for four. Strassburger and Bretz (2008) and Guilbaud (2008) give
intervals that hold at once in 95 of 100 tables and agree with Holm, here two-sided:

- where no difference is shown: Student's interval at 1 - 0.05 / k, with k the number of such differences;
- where this one is shown but not all are: only its direction, everything below or above zero, because the stepwise
  test has spent its error on the further tests;
- where all are shown: Student's interval at 1 - 0.05 / m, cut at zero.

That a shown difference is not zero is proved for any dependence between the tests. That its sign is right is proved for
independent tests (Shaffer 1980); the tests simulate it for a common baseline.
"""

import math
from collections.abc import Sequence

from xformer.studies.statistics import ALPHA, Interval, PairedComparison


def holm_levels(p_values: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """The level at which Holm tests each uncorrected p value, in the order passed."""
    levels, stopped = [0.0] * len(p_values), False
    level = alpha
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        level = level if stopped else alpha / (len(p_values) - rank)
        stopped = stopped or p_values[index] > level
        levels[index] = level
    return levels


def simultaneous_intervals(differences: Sequence[PairedComparison], alpha: float = ALPHA) -> list[Interval | None]:
    """One interval per difference, with joint level 1 - alpha.

    An interval is None if the sign-flip test cannot reject anything at its level.
    """
    raw = [each.p for each in differences]
    shown = [p <= level for p, level in zip(raw, holm_levels(raw, alpha), strict=True)]
    rest = shown.count(False)
    found: list[Interval | None] = []
    for each, different in zip(differences, shown, strict=True):
        between = each.interval(alpha / (rest or len(differences)))
        if different:
            low, high = (between.low, between.high) if between and not rest else (-math.inf, math.inf)
            low, high = (max(low, 0.0), high) if each.mean > 0 else (low, min(high, 0.0))
            between = Interval(low, high)
        found.append(Interval(between.low, between.high, 1 - alpha) if between else None)
    return found
