"""Equivalence within a margin, by two one-sided paired t tests.

Schuirmann (1987), Lakens (2017): two settings are equivalent within a margin d if "the difference is -d or less" and
"the difference is d or more" are both rejected, each by a one-sided test at level alpha. The p value is the larger of
the two. They are rejected if and only if the interval of level 1 - 2 alpha (90 % for one comparison) lies between -d
and d. "No difference shown" does not claim equivalence: with few seeds even a large difference may not be shown.

Where all differences are the same number (see `statistics.py`), the one-sided sign-flip test is used, which does not
assume normal differences; its p value is 1 / 2^n inside the margin.

Tests of equivalence are a family of their own: their p values are corrected by Holm over all comparisons of the table,
separately from those of differences, so that a margin changes no verdict of a difference. The probability of calling
any pair equivalent that is d or more apart is at most 5 %, and so is that of calling any equal pair different. No pair
is both, so the probability of a wrong claim is 5 % for a table of one comparison, and at most 10 % for a table where
some pairs are equal and others far apart.
"""

from scipy import special

from xformer.studies.statistics import Interval, PairedComparison


def equivalence_p(difference: PairedComparison, margin: float) -> float:
    """The p value of "the difference is as large as the margin or larger", not corrected."""
    inside = margin - abs(difference.mean)
    if difference.test == "t":
        return float(special.stdtr(difference.pairs - 1, -inside / difference.error))
    return 2.0**-difference.pairs if inside > 0 else 1.0


def equivalence_interval(difference: PairedComparison, alpha: float) -> Interval | None:
    """The interval of level 1 - 2 alpha, which lies within -d and d if and only if the pair is equivalent within d.

    None where the sign-flip test can reject nothing at this alpha.
    """
    return difference.interval(2 * alpha)
