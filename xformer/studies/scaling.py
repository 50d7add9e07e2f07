"""The difference between two settings by scale: curves, a band, and whether it grows, shrinks or crosses over.

Each setting's mean losses at three sizes or more are fitted by a power law with an offset (`power_law.py`), by
parameters or training FLOPs, and the difference is that of the two curves. Its uncertainty is that between seeds: they
are drawn again with replacement, the same ones for both settings and for all sizes (runs of a seed share data and
initial values, so neither is taken to be independent), both curves are fitted again, and the standard error of that
bootstrap, times sqrt(n / (n - 1)) for n seeds, gives Student's interval with n - 1 degrees of freedom. A percentile
interval of so few seeds would be far too narrow. Of 100 bands so many hold the difference of the true curves, with
seeds that share part of their noise (`tests/studies/test_scaling.py` repeats some of it):

      sizes, seeds                          3, 3   3, 5   4, 3   4, 5   4, 10   5, 3   5, 5   5, 10
      at the smallest size                    95     96     94     95      93     95     93      95
      at the largest size                     96     97     96     94      97     95     95      94
      at twice the largest                    97     96     95     95      95     95     95      95
      at four times the largest               96     96     95     94      94     95     95      95

That is where both losses are power laws. Nothing measured says that they still are beyond the largest size, so the band
ends at a multiple of it (`reach_beyond`): 1 where the sizes refuse the form (four or more, by the F test of what the
curve leaves over), 2 where three sizes cannot, else 4, and never more than the square root of the ratio of the largest
size to the smallest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special

from xformer.studies.power_law import FEWEST, Array, PowerLaw, fit_power_law
from xformer.studies.statistics import ALPHA, PairedComparison, holm_correction

Trend = Literal[
    "grows with scale", "shrinks with scale", "crosses over", "changes with scale", "no change with scale shown"
]
_DRAWS, _POINTS = 500, 60
_FARTHEST, _FARTHEST_OF_THREE = 4.0, 2.0


@dataclass(frozen=True)
class ScaledLosses:
    """The losses of one setting at several sizes.

    Attributes:
        scales: parameters or FLOPs of each size, of shape (sizes,).
        losses: of shape (sizes, seeds), the same seeds in the same order at each size.
    """

    scales: Array
    losses: Array

    def curve(self) -> PowerLaw:
        """The power law of the mean losses."""
        return fit_power_law(self.scales, self.losses.mean(axis=1))

    def refused(self) -> bool:
        """Whether the sizes refuse the form: the F test of what the curve leaves over, at 2.5 % for one of two."""
        sizes, seeds = self.losses.shape
        left, spread = sizes - FEWEST, float(self.losses.var(axis=1, ddof=1).mean())
        over = seeds * float(((self.losses.mean(axis=1) - self.curve().at(self.scales)) ** 2).sum())
        if left < 1 or over <= 1e-12 * float((self.losses**2).sum()):
            return False
        return spread == 0 or float(special.fdtrc(left, sizes * (seeds - 1), over / left / spread)) <= ALPHA / 2


@dataclass(frozen=True)
class DifferenceByScale:
    """A difference of two curves by scale.

    Attributes:
        scales: where the band is, from the smallest common size to the end of what is said.
        means: the difference of the curves there.
        low: of the 95 % band, each point by itself.
        high: of the 95 % band.
        largest: the largest size that both were measured at.
        beyond: the multiple of it at which the band ends.
        why: the reason of that multiple.
        first: the difference at the smallest size.
        last: the difference at the largest size.
        change: `last - first`.
        crossing: where the curves cross between the two; None where they do not.
        p: of no change, corrected over the table.
        trend: what is shown of the change.
    """

    scales: Array
    means: Array
    low: Array
    high: Array
    largest: float
    beyond: float
    why: str
    first: PairedComparison
    last: PairedComparison
    change: PairedComparison
    crossing: float | None
    p: float = 1.0
    trend: Trend = "no change with scale shown"


def difference_by_scale(losses: ScaledLosses, others: ScaledLosses) -> DifferenceByScale:
    """The difference `losses - others` by scale; its trend is for one comparison (`judge_trends` corrects for more).

    Raises:
        ValueError: fewer than three sizes or two seeds, or sizes that do not overlap.
    """
    seeds = losses.losses.shape[1]
    smallest = max(losses.scales.min(), others.scales.min())
    largest = float(min(losses.scales.max(), others.scales.max()))
    if seeds < 2 or others.losses.shape[1] != seeds or not smallest < largest:
        raise ValueError(f"a difference by scale needs 2 common seeds and sizes that overlap; these have {seeds} seeds")
    beyond, why = reach_beyond(losses, others, largest / smallest)
    scales = np.geomspace(smallest, largest * beyond, _POINTS)
    points = np.concatenate([[smallest, largest], scales])
    means = losses.curve().at(points) - others.curve().at(points)
    draws = np.random.default_rng(0).multinomial(seeds, [1 / seeds] * seeds, size=_DRAWS) / seeds
    refits = [fit_power_law(each.scales, draws @ each.losses.T).at(points) for each in (losses, others)]
    drawn, inflated = refits[0] - refits[1], math.sqrt(seeds / (seeds - 1))
    error = drawn.std(axis=0) * inflated
    reach = error[2:] * float(special.stdtrit(seeds - 1, 1 - ALPHA / 2))
    change_error = float((drawn[:, 1] - drawn[:, 0]).std()) * inflated
    first, last = (PairedComparison(float(means[i]), float(error[i]), seeds) for i in (0, 1))
    change = PairedComparison(last.mean - first.mean, change_error, seeds)
    found = DifferenceByScale(
        scales, means[2:], means[2:] - reach, means[2:] + reach, largest, beyond, why, first, last, change,
        _crossing(scales[scales <= largest], means[2:][scales <= largest]),
    )  # fmt: skip
    return judge_trends([found])[0]


def reach_beyond(losses: ScaledLosses, others: ScaledLosses, span: float) -> tuple[float, str]:
    """Up to which multiple of the largest size a difference may be extrapolated, and why.

    Args:
        losses: of one setting.
        others: of the other.
        span: the ratio of the largest common size to the smallest.
    """
    if losses.refused() or others.refused():
        return 1.0, "the sizes measured refuse a power law"
    if len(losses.scales) <= FEWEST or len(others.scales) <= FEWEST:
        farthest, why = _FARTHEST_OF_THREE, "three sizes cannot contradict a power law"
    else:
        farthest, why = _FARTHEST, "nothing measured says that the power law goes on"
    if math.sqrt(span) < farthest:
        return math.sqrt(span), f"the sizes measured span a factor of {span:.3g} alone"
    return farthest, why


def judge_trends(found: Sequence[DifferenceByScale]) -> list[DifferenceByScale]:
    """Judge the differences of one table: p values of no change corrected by Holm, both ends at 5 % over their number.

    A change that is shown is `crosses over` where the difference is shown to be of one sign at the smallest size and of
    the other at the largest; `grows with scale` where it is shown at the largest size and moves away from zero;
    `shrinks with scale` where it is shown at the smallest and moves towards zero; else `changes with scale`.
    """
    judged = []
    for each, p in zip(found, holm_correction([each.change.p for each in found]), strict=True):
        signs = [
            int(math.copysign(1, end.mean)) if end.p <= ALPHA / len(found) else 0 for end in (each.first, each.last)
        ]
        moved = 1 if each.change.mean > 0 else -1
        trend: Trend
        if p > ALPHA:
            trend = "no change with scale shown"
        elif signs[0] * signs[1] < 0:
            trend = "crosses over"
        elif signs[1] == moved and signs[0] * moved >= 0:
            trend = "grows with scale"
        elif signs[0] == -moved:
            trend = "shrinks with scale"
        else:
            trend = "changes with scale"
        judged.append(replace(each, p=p, trend=trend))
    return judged


def _crossing(scales: Array, means: Array) -> float | None:
    """Where the difference is zero between the first and the last of some scales, on a logarithmic axis."""
    turns = np.flatnonzero(np.sign(means[:-1]) * np.sign(means[1:]) < 0)
    if not turns.size:
        return None
    at = int(turns[0])
    part = means[at] / (means[at] - means[at + 1])
    return float(scales[at] * (scales[at + 1] / scales[at]) ** part)
