"""Differences by scale of curves that are known: found, covered, judged, and not carried too far."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from xformer.studies.power_law import Array
from xformer.studies.scaling import DifferenceByScale, ScaledLosses, difference_by_scale, judge_trends
from xformer.studies.statistics import PairedComparison

Curve = Callable[[Array], Array]


def law(offset: float, factor: float, exponent: float) -> Curve:
    return lambda scales: offset + factor * (scales / 1e4) ** -exponent


def sizes_of(count: int) -> Array:
    return np.geomspace(1e4, 1e4 * 4.0 ** (count - 1), count)


def drawn(rng: np.random.Generator, curve: Curve, other: Curve, count: int, seeds: int) -> DifferenceByScale:
    """The difference of two curves from losses whose noise is half common to a seed of both, half their own."""
    scales, common = sizes_of(count), rng.normal(size=(count, seeds)) * 0.03
    losses = [
        ScaledLosses(scales, each(scales)[:, None] + common + rng.normal(size=(count, seeds)) * 0.02)
        for each in (curve, other)
    ]
    return difference_by_scale(losses[0], losses[1])


@pytest.mark.parametrize(
    ("count", "seeds", "repeats"),
    [(4, 3, 60), *(pytest.param(*case, 1000, marks=pytest.mark.slow) for case in ((3, 3), (4, 5), (5, 3), (5, 10)))],
)
def test_the_band_holds_the_difference_of_the_true_curves(count: int, seeds: int, repeats: int) -> None:
    rng, curve, other = np.random.default_rng(0), law(1.5, 1.5, 0.3), law(1.6, 1.2, 0.35)
    held = np.zeros(60)
    for _ in range(repeats):
        found = drawn(rng, curve, other, count, seeds)
        true = curve(found.scales) - other(found.scales)
        held += (found.low <= true) & (true <= found.high)
    chance = (0.95 * 0.05 / repeats) ** 0.5
    assert held.min() / repeats >= 0.94 - 3 * chance
    assert held.max() / repeats <= 0.99 + 1 / repeats


@pytest.mark.parametrize(
    ("curve", "trend"),
    [
        (law(1.5, 1.5, 0.4), "grows with scale"),
        (law(1.5, 1.8, 0.3), "shrinks with scale"),
        (law(1.5, 1.8, 0.6), "crosses over"),
    ],
)
def test_a_change_is_called_what_it_is(curve: Curve, trend: str) -> None:
    rng, other = np.random.default_rng(0), law(1.5, 1.5, 0.3)
    found = [drawn(rng, curve, other, 4, 5) for _ in range(8)]
    assert Counter(each.trend for each in found)[trend] >= 7
    if trend == "crosses over":
        fine = np.geomspace(1e4, 6.4e5, 10_000)
        crossing = fine[np.abs(curve(fine) - other(fine)).argmin()]
        assert np.median([each.crossing or 0 for each in found]) == pytest.approx(crossing, rel=0.1)


@pytest.mark.parametrize("repeats", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("apart", [0.0, 0.2])
def test_where_nothing_changes_a_change_is_seldom_called(apart: float, repeats: int) -> None:
    rng, curve = np.random.default_rng(0), law(1.5, 1.5, 0.3)
    found = [drawn(rng, law(1.5 + apart, 1.5, 0.3), curve, 4, 3).trend for _ in range(repeats)]
    least = 0.94 - 3 * (0.95 * 0.05 / repeats) ** 0.5
    assert found.count("no change with scale shown") / repeats >= least


def test_the_band_ends_where_nothing_is_known() -> None:
    other = law(1.5, 1.5, 0.3)
    rng = np.random.default_rng(0)
    beyond = [Counter(round(drawn(rng, other, other, count, 5).beyond, 6) for _ in range(15)) for count in (3, 4)]
    assert beyond[0] == {2.0: 15}  # three sizes cannot refuse a power law
    assert beyond[1][4.0] >= 11
    assert {*beyond[1]} <= {1.0, 4.0}
    broken = drawn(rng, lambda scales: np.where(scales < 1e5, 3.0, 1.0), other, 5, 5)
    assert (broken.beyond, broken.why) == (1.0, "the sizes measured refuse a power law")
    assert broken.scales.max() == pytest.approx(broken.largest)
    scales = np.array([1e4, 1.5e4, 2e4, 2.5e4])
    near = ScaledLosses(scales, other(scales)[:, None] + np.array([0.0, 0.1, 0.2]))
    found = difference_by_scale(near, near)
    assert found.beyond == pytest.approx(2.5**0.5)
    assert found.scales.max() == pytest.approx(2.5e4 * 2.5**0.5)


def test_trends_of_a_table_are_corrected_together() -> None:
    rng = np.random.default_rng(0)
    found = drawn(rng, law(1.5, 1.5, 0.3), law(1.5, 1.5, 0.3), 4, 5)
    weak = PairedComparison(0.1, 0.03, 5)  # p 0.029
    each = DifferenceByScale(**{**vars(found), "change": weak, "last": PairedComparison(0.2, 0.01, 5)})
    assert judge_trends([each])[0].trend == "grows with scale"
    assert [one.trend for one in judge_trends([each, each])] == ["no change with scale shown"] * 2
    assert judge_trends([each, each])[0].p == pytest.approx(2 * weak.p)


def test_one_seed_or_sizes_apart_are_refused() -> None:
    scales = sizes_of(3)
    one = ScaledLosses(scales, np.ones((3, 1)))
    with pytest.raises(ValueError, match="these have 1 seeds"):
        difference_by_scale(one, one)
    low, high = ScaledLosses(scales, np.ones((3, 2))), ScaledLosses(scales * 1000, np.ones((3, 2)))
    with pytest.raises(ValueError, match="sizes that overlap"):
        difference_by_scale(low, high)
