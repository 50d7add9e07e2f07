"""The verdicts of one table: better, worse, equivalent within a margin, or no difference shown.

Guarantees for a table of variants against one baseline on equal seeds, and what a simulation of each finds. Numbers are
percentages for 3, 5, 10 and 20 seeds, of tables with four variants unless one comparison is named.

1. Equal settings (their metric has the same distribution) are called better or worse in 5 of 100 tables at most,
   whatever the distribution:

      equal settings called different            3     5    10    20 seeds
      normal                                   4.9   4.9   4.5   4.5
      skewed (exponential)                     2.9   2.2   2.8   3.3
      bounded (beta(9, 1))                     3.2   2.5   3.3   3.6
      right among 64 examples                  0.8   4.6   4.2   4.2

2. The same holds over all looks together if they are declared beforehand (`looks.py`):

      equal settings called different at one of the looks 3, 6 and 10
      normal                                   4.5
      skewed (exponential)                     2.7
      bounded (beta(9, 1))                     3.2
      right among 64 examples                  4.3

3. Settings as far apart as the margin are called equivalent in 5 of 100 tables at most, if their distributions differ
   only in the mean:

      at the margin called equivalent            3     5    10    20 seeds
      normal                                   4.5   4.5   4.4   4.2
      skewed (exponential)                     2.7   2.6   3.3   3.5
      bounded (beta(9, 1))                     3.1   3.0   3.8   3.6
      right among 64 examples                  2.4   4.5   4.2   3.9

4. The smallest difference that the seeds could have shown with 80 % power (`power.py`), one comparison, is shown in 80
   of 100 repeats if differences are normal, and in 75 or more if they are not:

      the smallest difference shown              3     5    10    20 seeds
      normal                                  80.1  79.5  80.5  80.3
      skewed (exponential)                    76.1  75.6  76.2  77.6
      bounded (beta(9, 1))                    77.2  76.4  77.7  77.4
      right among 64 examples                 78.4  79.8  80.1  79.8

There is no guarantee that settings of equal means but unequal distributions are not called different. If one of them
fails in a few seeds, those that ran may include no failure, and then show a difference that more seeds would not show.
One comparison of a constant 0.852 with a distribution of the same mean:

      equal means called different               3     5    10    20 seeds
      0.99, or 0.30 in every fifth seed       51.6  33.3  11.4   7.7
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from xformer.studies.equivalence import equivalence_interval, equivalence_p
from xformer.studies.looks import SpendingFunction, nominal_levels, repeated_p
from xformer.studies.power import minimum_detectable_difference, required_seeds
from xformer.studies.simultaneous import holm_levels
from xformer.studies.statistics import ALPHA, Interval, Mode, PairedComparison, holm_correction, verdict


@dataclass(frozen=True)
class AnalysisPlan:
    """The analysis plan, settled before the runs were looked at.

    Attributes:
        margin: the margin of equivalence; None for no test of equivalence.
        looks: the numbers of seeds at which the runs are compared, increasing; empty for a single look at any number.
        spending: how the error is spent over the looks.
    """

    margin: float | None = None
    looks: tuple[int, ...] = ()
    spending: SpendingFunction = "obrien_fleming"

    def pairs(self, available: int) -> int:
        """The number of pairs to test: that of the last look reached; 0 before the first."""
        return max((look for look in self.looks if look <= available), default=0) if self.looks else available

    def p(self, p: float, pairs: int) -> float:
        """A p value that allows for the looks."""
        return repeated_p(p, self.looks.index(pairs), self.looks, self.spending) if self.looks else p

    def level(self, alpha: float, pairs: int) -> float:
        """The level of the test at one look at which all looks together have this alpha."""
        return nominal_levels(self.looks, alpha, self.spending)[self.looks.index(pairs)] if self.looks else alpha


ONE_LOOK = AnalysisPlan()
SPENDING: tuple[SpendingFunction, ...] = get_args(SpendingFunction)


@dataclass(frozen=True)
class ComparisonVerdict:
    """The result of the test of a difference.

    Attributes:
        difference: the difference tested.
        verdict: `better`, `worse`, `equivalent within MARGIN` or `no difference shown`.
        p: the p value of no difference, corrected for the looks and over the table.
        level: the level at which the uncorrected p value is tested, such as 0.0125 for the first of four comparisons.
        interval: the interval of the difference at the level of its test; contains zero if and only if no difference is
            shown. None if that test cannot reject anything.
        equivalent: whether the difference is shown to be below the margin; None without a margin.
        p_equivalent: the p value of a difference of the margin or more, corrected likewise.
        equivalence_interval: the interval of the difference at twice the level of its test; lies within the margin if
            and only if `equivalent`.
    """

    difference: PairedComparison
    verdict: str
    p: float
    level: float
    interval: Interval | None
    equivalent: bool | None = None
    p_equivalent: float | None = None
    equivalence_interval: Interval | None = None

    @property
    def smallest(self) -> float | None:
        """The smallest true difference that as many seeds show with 80 % power; None for differences without spread."""
        return (
            minimum_detectable_difference(self._deviation, self.difference.pairs, self.level)
            if self._deviation
            else None
        )

    @property
    def seeds(self) -> int | None:
        """The number of seeds that show a true difference of the size found with 80 % power; None above 1000."""
        return required_seeds(self.difference.mean, self._deviation, self.difference.pairs, self.level)

    @property
    def _deviation(self) -> float:
        return self.difference.error * math.sqrt(self.difference.pairs)


def judge_differences(
    differences: Sequence[PairedComparison], mode: Mode, plan: AnalysisPlan = ONE_LOOK
) -> list[ComparisonVerdict]:
    """The verdict on each difference of one table.

    Args:
        differences: each with as many pairs as a look of the plan.
        mode: whether higher (`max`) or lower (`min`) is better.
        plan: the margin and the looks, settled beforehand.
    """
    raw = [plan.p(each.p, each.pairs) for each in differences]
    found = []
    for each, p, alpha in zip(differences, holm_correction(raw), holm_levels(raw), strict=True):
        level = plan.level(alpha, each.pairs)
        found.append(ComparisonVerdict(each, verdict(each.mean, p, mode), p, level, each.interval(level)))
    return found if plan.margin is None else _with_equivalence(differences, found, plan, plan.margin)


def _with_equivalence(
    differences: Sequence[PairedComparison], judged: Sequence[ComparisonVerdict], plan: AnalysisPlan, margin: float
) -> list[ComparisonVerdict]:
    """Add to each verdict its test of equivalence, which only changes the verdict `no difference shown`."""
    # A one-sided p value is half a two-sided one, also after the correction for looks.
    raw = [plan.p(min(1.0, 2 * equivalence_p(each, margin)), each.pairs) / 2 for each in differences]
    found = []
    for each, one, p, alpha in zip(differences, judged, holm_correction(raw), holm_levels(raw), strict=True):
        equivalent = p <= ALPHA
        word = f"equivalent within {margin:g}" if equivalent and one.p > ALPHA else one.verdict
        between = equivalence_interval(each, plan.level(2 * alpha, each.pairs) / 2)
        found.append(replace(one, verdict=word, equivalent=equivalent, p_equivalent=p, equivalence_interval=between))
    return found
