"""Intervals that hold together, and levels that are Holm's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xformer.studies.simultaneous import holm_levels, simultaneous_intervals
from xformer.studies.statistics import ALPHA, PairedComparison, holm_correction, verdict

REPEATS = 2000
P = st.floats(0, 1).map(lambda value: round(value, 4))
PAIRED = st.builds(
    PairedComparison, st.floats(-5, 5).map(lambda value: round(value, 3)), st.floats(0.01, 3), st.integers(2, 12)
)


def test_levels_by_hand() -> None:
    assert holm_levels([0.04, 0.001, 0.03, 0.013]) == pytest.approx([0.025, 0.0125, 0.025, 0.05 / 3])
    assert holm_levels([0.2, 0.1]) == pytest.approx([0.025, 0.025])  # nothing is refused: Bonferroni's
    assert holm_levels([0.01]) == [ALPHA]
    assert holm_levels([]) == []


@given(st.lists(P, min_size=1, max_size=8))
def test_a_p_value_is_below_its_level_if_and_only_if_holm_refuses(p_values: list[float]) -> None:
    for p, corrected, level in zip(p_values, holm_correction(p_values), holm_levels(p_values), strict=True):
        assert ALPHA / len(p_values) - 1e-12 <= level <= ALPHA
        if abs(p - level) > 1e-9:
            assert (p <= level) == (corrected <= ALPHA)


@given(st.lists(PAIRED, min_size=1, max_size=6))
def test_both_kinds_of_interval_agree_with_the_verdict(differences: list[PairedComparison]) -> None:
    raw = [each.p for each in differences]
    together = simultaneous_intervals(differences)
    for each, p, level, all_hold in zip(differences, holm_correction(raw), holm_levels(raw), together, strict=True):
        shown = verdict(each.mean, p, "max") != "no difference shown"
        if abs(each.p - level) < 1e-9:
            continue
        own = each.interval(level)
        assert own
        assert all_hold
        assert shown == (not own.low <= 0 <= own.high)
        assert shown == (all_hold.low >= 0 or all_hold.high <= 0)
        assert own.low <= each.mean <= own.high
        if not shown:
            assert (all_hold.low, all_hold.high) == pytest.approx((own.low, own.high))


def test_where_the_test_went_on_only_the_direction_is_left() -> None:
    found = simultaneous_intervals([PairedComparison(-5.0, 0.1, 10), PairedComparison(0.1, 0.2, 10)])
    assert found[0]
    assert (found[0].low, found[0].high) == (-math.inf, 0.0)
    both = simultaneous_intervals([PairedComparison(-5.0, 0.1, 10), PairedComparison(3.0, 0.2, 10)])
    expected = PairedComparison(-5.0, 0.1, 10).interval(ALPHA / 2)
    assert both[0]
    assert expected
    assert (both[0].low, both[0].high, both[0].level) == (expected.low, expected.high, 0.95)


def test_differences_without_spread_have_an_interval_where_their_test_can_refuse() -> None:
    assert simultaneous_intervals([PairedComparison(0.1, 0.0, 3)]) == [None]
    found = simultaneous_intervals([PairedComparison(0.1, 0.0, 6)])
    assert found[0]
    assert (found[0].low, found[0].high) == (0.1, 0.1)


@pytest.mark.parametrize("pairs", [3, 5, 20])
@pytest.mark.parametrize("true", [(0, 0, 0, 0), (0, 0, 3, 9), (2, 2, 3, 9), (9, 9, 9, 9), (0.5, -0.5, 0, 1)], ids=str)
def test_how_often_all_of_a_table_hold(pairs: int, true: tuple[float, ...]) -> None:
    """Of variants against one baseline, whose differences are therefore correlated."""
    generator, all_held, own_held, each_held = np.random.default_rng(0), 0, 0, np.zeros(len(true))
    drawn = generator.normal(size=(REPEATS, len(true) + 1, pairs))
    apart = drawn[:, 1:] - drawn[:, :1] + np.array(true)[:, None]
    means, errors = apart.mean(2), apart.std(2, ddof=1) / math.sqrt(pairs)
    for mean, error in zip(means.tolist(), errors.tolist(), strict=True):
        differences = [PairedComparison(m, e, pairs) for m, e in zip(mean, error, strict=True)]
        levels = holm_levels([each.p for each in differences])
        own = [each.interval(level) for each, level in zip(differences, levels, strict=True)]
        held = [b is not None and b.low <= t <= b.high for b, t in zip(own, true, strict=True)]
        each_held += held
        own_held += all(held)
        together = simultaneous_intervals(differences)
        all_held += all(b is not None and b.low <= t <= b.high for b, t in zip(together, true, strict=True))
    error = 3 * math.sqrt(0.05 * 0.95 / REPEATS)
    assert all_held / REPEATS >= 0.95 - error
    assert (each_held / REPEATS >= 0.95 - error).all()
    assert own_held / REPEATS >= 1 - 0.05 * (1 + 1 / 2 + 1 / 3 + 1 / 4) - error
