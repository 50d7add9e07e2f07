"""Group-sequential tests: looking at a comparison before all of its seeds have run.

Testing at 5 %, and adding seeds where no difference is shown, calls equal settings different in more than 5 of 100
cases. For normal differences and each look at 5 %:

      seeds at the looks        called different
      3, 5                       8.7 %
      3, 10                      9.4 %
      5, 10                      8.7 %
      3, 5, 10                  12.1 %
      5, 10, 20                 11.9 %
      each from 3 to 10         16.7 %
      each from 3 to 20         23.0 %

Looks that are declared beforehand keep the error at 5 % in all. It is spent over the looks as a function of the share t
of the seeds that have run (Lan and DeMets 1983):

- `obrien_fleming`, 4 (1 - Phi(z(1 - alpha / 4) / sqrt(t))): nearly all error is spent at the end, where the test is
  almost that of a single look;
- `pocock`, alpha log(1 + (e - 1) t): about the same error at each look, which makes stopping early easier.

The boundaries are those of normal sums with independent increments, by numerical integration (Armitage, McPherson and
Rowe 1969), used as nominal levels for the p values of t tests (Jennison and Turnbull 2000, section 4.4). With t
statistics of few seeds these reject in 5.1 to 5.8 % of cases instead of 5, so alpha is divided by the inflation that a
simulation of the same looks finds; then they reject in 4.8 to 5.2 %. A p value that allows for the looks is the
smallest level at which the test at this look rejects (the repeated p value of Jennison and Turnbull 1984). Holm's
correction of such p values holds its level over all looks and comparisons together (Maurer and Bretz 2013).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from scipy import special

from xformer.studies.statistics import ALPHA

SpendingFunction = Literal["obrien_fleming", "pocock"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(80)
_REPEATS = 200_000
_LEAST = 1e-12  # a p value below this is taken for it, because a boundary's tail is no smaller number


def alpha_spent(share: float, alpha: float, spending: SpendingFunction) -> float:
    """The part of alpha that is spent when this share of the seeds has run."""
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1) * share)
    return float(4 * special.ndtr(special.ndtri(alpha / 4) / math.sqrt(share)))


def normal_levels(looks: Sequence[int], alpha: float, spending: SpendingFunction) -> list[float]:
    """The nominal two-sided level of each look for normal statistics.

    Args:
        looks: the numbers of seeds, rising; the last is of all seeds.
        alpha: of all looks together.
        spending: when it is spent.
    """
    shares = [look / looks[-1] for look in looks]
    steps = np.diff([0.0, *(alpha_spent(share, alpha, spending) for share in shares)])
    # `density` is the density of the sum at `points` within the last boundary, times their integration weights.
    points, density, levels = np.zeros(1), np.ones(1), []
    for share, before, step in zip(shares, [0.0, *shares], steps, strict=False):
        deviation = math.sqrt(share - before)
        high = _root(functools.partial(_excess, points, density, deviation, step), 0.0, 37.0 * math.sqrt(share))
        levels.append(float(2 * special.ndtr(-high / math.sqrt(share))))
        inside = high * _NODES
        apart = (inside[:, None] - points) / deviation
        density = (np.exp(-(apart**2) / 2) @ density) / (deviation * math.sqrt(2 * math.pi)) * high * _WEIGHTS
        points = inside
    return levels


def nominal_levels(
    looks: Sequence[int], alpha: float = ALPHA, spending: SpendingFunction = "obrien_fleming"
) -> list[float]:
    """The nominal two-sided level of each look's t test, so that all looks together reject with probability alpha.

    Args:
        looks: the numbers of seeds, rising, from 2; the last is of all seeds.
        alpha: of all looks together.
        spending: when it is spent.
    """
    if len(looks) == 1:
        return [alpha]
    return normal_levels(looks, alpha / _inflation(tuple(looks), spending), spending)


def repeated_p(p: float, look: int, looks: Sequence[int], spending: SpendingFunction = "obrien_fleming") -> float:
    """The repeated p value: at most alpha if and only if the test at this look rejects at alpha.

    Args:
        p: the p value of the two-sided test at this look.
        look: the index of this look in `looks`.
        looks: the numbers of seeds, rising, from 2.
        spending: when the error is spent.
    """
    if len(looks) == 1:
        return p
    p = max(p, _LEAST)

    def excess(logarithm: float) -> float:
        return math.log(nominal_levels(looks, math.exp(logarithm), spending)[look]) - math.log(p)

    if p >= 1 or excess(0.0) <= 0:
        return 1.0
    return math.exp(_root(excess, math.log(p), 0.0))


def undeclared_error(looks: Sequence[int], alpha: float = ALPHA) -> float:
    """How often equal settings are called different at any of these numbers of seeds, each tested at alpha.

    Simulated from normal differences with a fixed seed.
    """
    return _called(looks, [alpha] * len(looks))


def _excess(points: Any, density: Any, deviation: float, step: float, bound: float) -> float:
    """The probability of ending outside a boundary, on either side, minus what a look may spend."""
    beyond = special.ndtr((points - bound) / deviation) + special.ndtr((-points - bound) / deviation)
    return float(beyond @ density - step)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy import optimize  # which takes as long to import as all else here

    return float(optimize.brentq(function, low, high, xtol=1e-10))


@functools.cache
def _inflation(looks: tuple[int, ...], spending: SpendingFunction) -> float:
    """The factor by which t tests at the levels of normal statistics exceed alpha; about the same at each alpha."""
    return max(1.0, _called(looks, normal_levels(looks, ALPHA, spending)) / ALPHA)


def _called(looks: Sequence[int], levels: Sequence[float]) -> float:
    """How often equal settings are called different at one look or more."""
    drawn = np.random.default_rng(0).standard_normal((_REPEATS, max(looks)))
    sums, squares, called = np.zeros(_REPEATS), np.zeros(_REPEATS), np.zeros(_REPEATS, dtype=bool)
    for before, look, level in zip((0, *looks), looks, levels, strict=False):
        sums += drawn[:, before:look].sum(1)
        squares += (drawn[:, before:look] ** 2).sum(1)
        around = np.maximum(squares - sums**2 / look, np.finfo(float).tiny)
        t = sums / np.sqrt(around / (look - 1) * look)
        called |= np.abs(t) >= -special.stdtrit(look - 1, level / 2)
    return float(called.mean())
