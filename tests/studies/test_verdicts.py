"""The verdicts of a table, and how often they are wrong and right, by simulation."""

import math
import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xformer.studies import verdicts
from xformer.studies.power import minimum_detectable_difference
from xformer.studies.statistics import ALPHA, PairedComparison, holm_correction, paired_comparison
from xformer.studies.verdicts import AnalysisPlan, ComparisonVerdict, judge_differences

REPEATS = 2000
VARIANTS = 4
SEEDS = (3, 5, 10, 20)
LOOKS = (3, 6, 10)

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
LAWS: dict[str, Draw] = {  # each of mean 0 and standard deviation 1
    "normal": lambda g, size: g.normal(size=size),
    "skewed (exponential)": lambda g, size: g.exponential(size=size) - 1,
    "bounded (beta(9, 1))": lambda g, size: (g.beta(9, 1, size) - 0.9) / math.sqrt(0.9 * 0.1 / 11),
    "right among 64 examples": lambda g, size: (g.binomial(64, 0.95, size) - 60.8) / math.sqrt(64 * 0.95 * 0.05),
}


def _fails(g: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return np.where(g.random(size) < 0.2, 0.3, 0.99) - 0.852 + g.normal(0, 0.003, size)


def _steady(g: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return g.normal(0, 0.003, size)


def _tables(seeds: int, true: list[float], variant: Draw, baseline: Draw, start: int = 0) -> np.ndarray:
    """Differences to one baseline, in many tables."""
    generator = np.random.default_rng(start)
    drawn = variant(generator, (REPEATS, len(true), seeds)) + np.array(true)[:, None]
    return drawn - baseline(generator, (REPEATS, 1, seeds))


def _paired(differences: np.ndarray) -> list[PairedComparison]:
    """One table's, as `paired` makes them."""
    zeros = [0.0] * differences.shape[-1]
    return [found for each in differences if (found := paired_comparison(list(each), zeros))]


def _p(tables: np.ndarray, at: float = 0.0, side: str = "two-sided") -> np.ndarray:
    """scipy's p value of each comparison, and that of sign flips where all differences are one number."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p = stats.ttest_1samp(tables, at, axis=-1, alternative=side).pvalue
    mean, flips = tables.mean(-1) - at, 2.0 ** -tables.shape[-1]
    refused = {"two-sided": mean != 0, "greater": mean > 0, "less": mean < 0}[side]
    exact = np.where(refused, flips * (2 if side == "two-sided" else 1), 1.0)
    return np.where(np.ptp(tables, axis=-1) <= 1e-12, exact, p)


def _wrong(tables: np.ndarray, margin: float | None = None) -> np.ndarray:
    """Tables in which Holm refuses anything: the smallest p value is below the first level.

    Either "no difference", or "as far apart as the margin". `judge_differences` says the same of the first tables.
    """
    p = _p(tables) if margin is None else np.maximum(_p(tables, -margin, "greater"), _p(tables, margin, "less"))
    called = np.asarray(p.min(1) <= ALPHA / tables.shape[1])
    plan, word = AnalysisPlan(margin=margin), _different if margin is None else _equivalent
    for table, one in zip(tables[:30], called[:30], strict=True):
        assert any(map(word, judge_differences(_paired(table), "max", plan))) == one
    return called


def _different(one: ComparisonVerdict) -> bool:
    return one.verdict in ("better", "worse")


def _equivalent(one: ComparisonVerdict) -> bool:
    return bool(one.equivalent)


def _said(block: str, law: str) -> list[float]:
    """A line of the docstring's table."""
    text = (verdicts.__doc__ or "").partition(f"      {block}")[2]
    line = next(line for line in text.splitlines() if line.strip().startswith(law))
    return [float(each) / 100 for each in re.findall(r"[\d.]+", line.replace(law, ""))]


def _noise(rate: float) -> float:
    return 0.005 + 3 * math.sqrt(max(rate * (1 - rate), 0.01) / REPEATS)


@pytest.mark.parametrize("law", LAWS)
def test_equal_settings_are_called_different_as_often_as_the_docstring_says(law: str) -> None:
    for seeds, said in zip(SEEDS, _said("equal settings called different", law), strict=True):
        rate = _wrong(_tables(seeds, [0.0] * VARIANTS, LAWS[law], LAWS[law])).mean()
        assert abs(rate - said) <= _noise(said)
        assert rate <= ALPHA + _noise(ALPHA)


@pytest.mark.parametrize("law", LAWS)
def test_settings_at_the_margin_are_called_equivalent_as_often_as_the_docstring_says(law: str) -> None:
    for seeds, said in zip(SEEDS, _said("at the margin called equivalent", law), strict=True):
        rate = _wrong(_tables(seeds, [2.0] * VARIANTS, LAWS[law], LAWS[law]), margin=2.0).mean()
        assert abs(rate - said) <= _noise(said)
        assert rate <= ALPHA + _noise(ALPHA)


@pytest.mark.parametrize("law", LAWS)
def test_the_smallest_difference_is_shown_as_often_as_the_docstring_says(law: str) -> None:
    for seeds, said in zip(SEEDS, _said("the smallest difference shown", law), strict=True):
        first = _tables(seeds, [0.0], LAWS[law], LAWS[law])[:, 0]
        again = _tables(seeds, [0.0], LAWS[law], LAWS[law], 1)[:, 0]
        true = first.std(1, ddof=1) * minimum_detectable_difference(1.0, seeds, ALPHA)
        shown = (_p(again + true[:, None]) <= ALPHA) & ((again + true[:, None]).mean(1) > 0)
        assert abs(shown.mean() - said) <= _noise(said)
        one = judge_differences(_paired(first[:1]), "max")[0]
        assert one.smallest == pytest.approx(true[0])


@pytest.mark.parametrize("law", LAWS)
def test_declared_looks_are_wrong_as_often_as_the_docstring_says(law: str) -> None:
    (said,) = _said("equal settings called different at one of the looks 3, 6 and 10", law)
    tables, plan = _tables(10, [0.0] * VARIANTS, LAWS[law], LAWS[law]), AnalysisPlan(looks=LOOKS)
    called = np.zeros(REPEATS, dtype=bool)
    for look in LOOKS:
        now = _p(tables[:, :, :look]).min(1) <= plan.level(ALPHA / VARIANTS, look)
        for table, one in zip(tables[:5, :, :look], now[:5], strict=True):
            assert any(map(_different, judge_differences(_paired(table), "max", plan))) == one
        called |= now
    assert abs(called.mean() - said) <= _noise(said)
    assert called.mean() <= ALPHA + _noise(ALPHA)


def test_what_no_test_can_know_is_in_the_docstring() -> None:
    """Means are equal, and one setting fails in every fifth seed: three seeds seldom show that."""
    block, law = "equal means called different", "0.99, or 0.30 in every fifth seed"
    for seeds, said in zip(SEEDS, _said(block, law), strict=True):
        rate = _wrong(_tables(seeds, [0.0], _fails, _steady)).mean()
        assert abs(rate - said) <= _noise(said)
        assert rate > ALPHA


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_table_of_all_kinds_has_no_wrong_verdict_in_nine_of_ten_cases(seeds: int) -> None:
    """Two families, 5 % each: of differences, whose direction may be wrong too, and of equivalences."""
    plan, true, repeats = AnalysisPlan(margin=1.5), [0.0, 0.0, 1.5, -1.5, 0.4, -0.4], 500
    wrong = different = equivalent = 0
    for table in _tables(seeds, true, LAWS["normal"], LAWS["normal"])[:repeats]:
        judged = judge_differences(_paired(table), "max", plan)
        word = [one.verdict for one in judged]
        a = any(map(_different, judged[:2])) or "worse" in (word[2], word[4]) or "better" in (word[3], word[5])
        b = any(map(_equivalent, judged[2:4]))
        different, equivalent, wrong = different + a, equivalent + b, wrong + (a or b)
    assert different / repeats <= ALPHA + 2 * _noise(ALPHA)
    assert equivalent / repeats <= ALPHA + 2 * _noise(ALPHA)
    assert wrong / repeats <= 2 * ALPHA + 2 * _noise(2 * ALPHA)


PAIRED = st.builds(
    PairedComparison, st.floats(-2, 2).map(lambda value: round(value, 3)), st.floats(0.01, 2), st.sampled_from(LOOKS)
)
PLANS = [AnalysisPlan(margin, looks) for margin in (None, 0.1, 1.0) for looks in ((), LOOKS)]


@pytest.mark.parametrize("plan", PLANS)
@settings(max_examples=25, deadline=None)
@given(st.lists(PAIRED, min_size=1, max_size=5))
def test_verdict_p_and_intervals_agree(plan: AnalysisPlan, differences: list[PairedComparison]) -> None:
    for each, one in zip(differences, judge_differences(differences, "max", plan), strict=True):
        assert one.interval
        if abs(each.p - one.level) > 1e-9:
            assert _different(one) == (one.p <= ALPHA) == (not one.interval.low <= 0 <= one.interval.high)
        if plan.margin is None:
            assert one.equivalent is None
            continue
        assert one.equivalence_interval
        assert one.p_equivalent is not None
        if abs(one.p_equivalent - ALPHA) > 1e-6:
            inside = -plan.margin < one.equivalence_interval.low and one.equivalence_interval.high < plan.margin
            assert one.equivalent == inside
        expected = one.equivalent and not _different(one)
        assert (one.verdict == f"equivalent within {plan.margin:g}") == expected


def test_without_looks_the_p_value_is_holms_of_scipys() -> None:
    generator = np.random.default_rng(3)
    base, others = generator.normal(size=5), generator.normal(size=(3, 5))
    raw = [stats.ttest_rel(other, base).pvalue for other in others]
    tests = [found for other in others if (found := paired_comparison(list(other), list(base)))]
    assert [one.p for one in judge_differences(tests, "min")] == pytest.approx(holm_correction(raw))


def test_a_margin_changes_no_verdict_of_a_difference() -> None:
    differences = [
        PairedComparison(0.001, 0.0001, 10),
        PairedComparison(0.0, 0.0001, 10),
        PairedComparison(0.1, 0.1, 10),
    ]
    plain, judged = (
        judge_differences(differences, "max"),
        judge_differences(differences, "max", AnalysisPlan(margin=0.01)),
    )
    assert [one.verdict for one in plain] == ["better", "no difference shown", "no difference shown"]
    assert [one.verdict for one in judged] == ["better", "equivalent within 0.01", "no difference shown"]
    assert [one.equivalent for one in judged] == [True, True, False]
    assert [one.p for one in plain] == [one.p for one in judged]


def test_what_is_tested_at_a_look() -> None:
    plan = AnalysisPlan(looks=LOOKS)
    assert [plan.pairs(available) for available in (2, 3, 5, 6, 9, 10, 14)] == [0, 3, 3, 6, 6, 10, 10]
    assert AnalysisPlan().pairs(7) == 7


def test_the_smallest_difference_and_the_seeds_are_at_the_level_of_the_test() -> None:
    alone, among = (
        judge_differences([PairedComparison(0.5, 1.0, 5)], "max")[0],
        judge_differences([PairedComparison(0.5, 1.0, 5)] * 4, "max")[0],
    )
    assert (alone.level, among.level) == pytest.approx((0.05, 0.0125))
    assert alone.smallest
    assert among.smallest
    assert alone.smallest < among.smallest
    assert alone.seeds
    assert among.seeds
    assert 5 < alone.seeds < among.seeds
    same = judge_differences([PairedComparison(0.5, 0.0, 3)], "max")[0]
    assert same.smallest is None
