"""The table of a comparison: formatted cells for people, and records with every digit for programs."""

import math
from dataclasses import asdict
from typing import Any

from xformer.config.identity import override_value
from xformer.studies.bounded import UNBOUNDED
from xformer.studies.budget import FLOPS_ARE, Budget, format_quantity
from xformer.studies.comparison import Comparison, ComparisonRow
from xformer.studies.metric import metric_bounds
from xformer.studies.power import MOST
from xformer.studies.trials import TunedVariant

QUALITY = 7
"""The number of quality columns between names and budget; the verdict is the last of them."""
_MOST_SETTINGS = 8  # whose scores stand in a note


def table_headers(comparison: Comparison) -> list[str]:
    """The titles of the columns: the settings compared, quality, then budget."""
    keys = list(comparison.differ.named) or ["configuration"]
    against = f"difference to {comparison.baseline}" if comparison.baseline else "difference"
    return [
        *keys, "seeds", comparison.metric.name, "95 % interval", against, "p (Holm)", "detectable", "verdict",
        "parameters", "training FLOPs", "tokens", "time", "peak memory",
    ]  # fmt: skip


def table_cells(comparison: Comparison, row: ComparisonRow) -> list[str]:
    """The formatted cells of a row, one for each of `table_headers`."""
    digits = decimals(comparison)
    known = f"[{row.interval.low:.{digits}f}, {row.interval.high:.{digits}f}]" if row.interval else "one seed"
    keys = [row.group.get(key) for key in comparison.differ.named] or ["all runs"]
    return [
        *keys,
        str(len(row.values)),
        f"{row.mean:.{digits}f}",
        known,
        f"{row.difference.mean:+.{digits}f} {_reach(row, digits)}" if row.difference else "-",
        "-" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}",
        _detectable(row, digits),
        row.verdict + (f" by less than {comparison.plan.margin:g}" if _small(row) else ""),
        *(format_quantity(name, value) for name, value in asdict(row.budget).items()),
    ]


def decimals(comparison: Comparison) -> int:
    """The number of decimals to print: four significant digits of the largest mean, but at least two decimals."""
    largest = max(abs(row.mean) for row in comparison.rows)
    return max(2, 4 - max(0, math.floor(math.log10(largest)) if largest > 0 else 0))


def three_digits(value: float) -> str:
    """Format a value with three significant digits, whole numbers in full: `0.0813`, `12.4`, `1,234`."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def exactly_three_digits(value: float) -> str:
    """Format a value with three significant digits, zeros at the end too: `2.70`, `0.510`, `1,234`."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def table_notes(comparison: Comparison) -> list[str]:
    """Notes on the table: the metric, what was tuned, the tests, the FLOPs and the trivial baselines."""
    better = "higher is better" if comparison.metric.mode == "max" else "lower is better"
    found = [f"{comparison.metric.name}: {better}; mean over seeds.", *_tuned(comparison), *_tests(comparison)]
    if any(row.budget.flops is not None for row in comparison.rows):
        found.append(FLOPS_ARE)
    summaries = [run.summary for row in comparison.rows for run in row.group.runs]
    for metric in dict.fromkeys(summary.baseline_metric for summary in summaries):
        of_it = [summary.trivial_baselines for summary in summaries if summary.baseline_metric == metric]
        scores = dict.fromkeys(score for named in of_it for score in named.items() if score[1] is not None)
        if 0 < len(scores) <= 4:
            known = ", ".join(f"{name} {three_digits(value)}" for name, value in scores if value is not None)
            found.append(f"Trivial baselines{f' in {metric}' if metric else ''}: {known}.")
    return found


def _tuned(comparison: Comparison) -> list[str]:
    """What was tuned, and what was chosen for each group; or that nothing was."""
    tuning = comparison.tuning
    if tuning is None:
        words = "Not tuned: no group has settings that were chosen for it, and what suits one may not suit another."
        return [words] if len(comparison.rows) > 1 else []
    better = "highest" if tuning.metric.mode == "max" else "lowest"
    found = [
        f"Tuned: {', '.join(tuning.keys)}, for each group the setting with the {better} mean {tuning.metric.name} over "
        "its trials; of equal ones the lowest values, and none that diverged. Trials have seeds of their own and are "
        "not tested."
    ]
    for row in comparison.rows:
        if row.tuned and row.tuned.chosen:
            seeds = f"seed{'s' if len(row.tuned.seeds) > 1 else ''} {', '.join(map(str, row.tuned.seeds))}"
            found.append(
                f"{row.name}: {row.tuned.chosen.name} was chosen from {len(row.tuned.settings)} settings in "
                f"{row.tuned.trials} trials ({seeds}): {_scores(row.tuned)}."
            )
    return found


def _scores(variant: TunedVariant) -> str:
    """The mean metric of each setting: `0.001: 2.31, 0.003: diverged`; of the best where there are many."""
    ended = [s for s in variant.settings if s.mean is not None or s.diverged]
    if len(ended) > _MOST_SETTINGS:
        ended = [s for s in ended if s is variant.chosen]
    return ", ".join(
        f"{' '.join(override_value(value) for value in s.values.values())}: "
        f"{'diverged' if s.mean is None else format(s.mean, '.4g')}"
        for s in ended
    )


def _tests(comparison: Comparison) -> list[str]:
    """Notes on the statistical methods behind the intervals and the verdicts."""
    found = []
    if any(row.interval for row in comparison.rows):
        found.append(
            "95 % intervals are Student's t: they cover the mean in 95 of 100 cases if values are normal, in 88 to 93 "
            "if they are as skewed as exponential ones (3 to 30 seeds)."
            if metric_bounds(comparison.metric.name) == UNBOUNDED
            else "95 % intervals are Student's t on an unbounded scale, and so stay within the metric's bounds: they "
            "cover the mean in 95 of 100 cases if values are normal, in 93 to 95 if they are near a bound or as skewed "
            "as exponential ones (3 to 20 seeds)."
        )
    used = {row.difference.test for row in comparison.rows if row.difference}
    if not used:
        return found
    plan, count = comparison.plan, sum(row.difference is not None for row in comparison.rows)
    equal = "the sign-flip test if all seeds have the same difference, which needs at least 6 seeds to show one"
    tests = {"t": "the paired t test", "signs": equal}
    reasons = " and ".join(tests[test] for test in ("t", "signs") if test in used)
    corrected = f", corrected for {count} comparisons (Holm)" if count > 1 else ""
    found.append(
        f"Differences are paired on equal seeds and tested by {reasons}{corrected}; better or worse at p <= 0.05."
    )
    found.append(_INTERVALS[comparison.intervals])
    found.append(
        "Detectable: the smallest true difference that as many seeds show with 80 % power at that level, allowing for "
        "the uncertainty of a spread estimated from few seeds."
    )
    if plan.margin is not None:
        found.append(
            f"Equivalent within {plan.margin:g}: two one-sided paired t tests reject a difference of that size or "
            "larger at p <= 0.05, corrected separately from the tests of differences (Holm)."
        )
    if plan.looks:
        found.append(
            f"Looks were declared at {', '.join(map(str, plan.looks))} seeds; p values allow for all of them "
            f"(Lan and DeMets, {_SPENDING[plan.spending]})."
        )
    return found


_INTERVALS = {
    "corrected": "The interval of a difference has the level of its test, 95 % or more with several comparisons, and "
    "contains 0 if and only if no difference is shown; with --intervals simultaneous all intervals hold at once.",
    "plain": "The interval of a difference is a 95 % interval, not corrected for several comparisons, and may disagree "
    "with the verdict.",
    "simultaneous": "All intervals of differences hold at once in 95 of 100 tables; if some differences are shown and "
    "others are not, only the direction of those shown is known.",
}
_SPENDING = {"obrien_fleming": "O'Brien and Fleming", "pocock": "Pocock"}


def findings(comparison: Comparison) -> list[str]:
    """The findings: a sentence for each verdict."""
    digits, sentences = decimals(comparison), []
    metric = comparison.metric.name
    for row in comparison.rows:
        if row.difference is None:
            continue
        level = f"{100 * row.reach.level:.3g} % " if row.reach else ""
        how = f"{row.difference.mean:+.{digits}f} {metric}, {level}{_reach(row, digits)}, {row.difference.pairs} seeds"
        link = "from" if row.verdict.startswith("no") else "to" if row.verdict.startswith("equivalent") else "than"
        by = f", by less than {comparison.plan.margin:g}" if _small(row) else ""
        sentence = f"{row.name}: {row.verdict} {link} {comparison.baseline}{by} ({how})."
        sentences.append(f"{sentence} {_power(row, digits)}".rstrip())
    return sentences


def _power(row: ComparisonRow, digits: int) -> str:
    """The power of a comparison that shows no difference, and the number of seeds that would show one."""
    test = row.test
    if test is None or row.verdict != "no difference shown" or test.smallest is None:
        return ""
    pairs, needed, size = test.difference.pairs, test.seeds, abs(test.difference.mean)
    able = f"{pairs} seeds show {test.smallest:.{digits}f} with 80 % power"
    if needed is None:
        return f"{able}; one of {size:.{digits}f} would take more than {MOST} seeds."
    return f"{able}; one of {size:.{digits}f} would take about {needed - pairs} more seeds."


def _detectable(row: ComparisonRow, digits: int) -> str:
    return f"{row.test.smallest:.{digits}f}" if row.test and row.test.smallest is not None else "-"


def _small(row: ComparisonRow) -> bool:
    """Whether the row shows a difference, and shows that it is below the margin."""
    return bool(row.test and row.test.equivalent) and row.verdict in ("better", "worse")


def table_warnings(comparison: Comparison) -> list[str]:
    """The warnings of a comparison, then the runs that are not in the table, each with its reason."""
    return [
        *(f"warning: {sentence}" for sentence in comparison.warnings),
        *(f"not in the table: {run}: {' '.join(reason.split())}" for run, reason in comparison.left_out.items()),
    ]


def table_records(comparison: Comparison) -> list[dict[str, Any]]:
    """One dictionary for each group, with unrounded numbers."""
    found = []
    for row in comparison.rows:
        keys = {key: row.group.get(key) for key in comparison.differ.named} or {"configuration": "all runs"}
        between, apart, reach, test = row.interval, row.difference, row.reach, row.test
        numbers = {
            "metric": comparison.metric.name,
            "seeds": len(row.values),
            "mean": row.mean,
            "low": between.low if between else None,
            "high": between.high if between else None,
            "difference": apart.mean if apart else None,
            "difference_low": reach.low if reach else None,
            "difference_high": reach.high if reach else None,
            "difference_level": reach.level if reach else None,
            "test": apart.test if apart else None,
            "pairs": apart.pairs if apart else None,
            "p_holm": row.p,
            "detectable_difference": test.smallest if test else None,
            "seeds_needed": test.seeds if test else None,
            "equivalent": test.equivalent if test else None,
            "p_equivalent_holm": test.p_equivalent if test else None,
            "verdict": row.verdict,
            "lost_runs": row.lost,
        }
        found.append({**comparison.experiment, **keys, **numbers, **_choice(comparison, row), **_budget(row.budget)})
    return found


def _choice(comparison: Comparison, row: ComparisonRow) -> dict[str, Any]:
    """What tuning chose for a group, and from how many trials; empty where nothing was tuned."""
    if comparison.tuning is None:
        return {}
    chosen = row.tuned.chosen if row.tuned else None
    values = {f"chosen_{key}": chosen.values[key] if chosen else None for key in comparison.tuning.keys}
    return {**values, "trials": row.tuned.trials if row.tuned else 0}


def _budget(budget: Budget) -> dict[str, float | None]:
    return {
        "parameters": budget.parameters,
        "training_flops": budget.flops,
        "tokens": budget.tokens,
        "wall_seconds": budget.seconds,
        "peak_memory_bytes": budget.memory,
    }


def _reach(row: ComparisonRow, digits: int) -> str:
    """The interval of a row's difference."""
    if row.reach is None:
        return "in every seed"
    return f"[{row.reach.low:+.{digits}f}, {row.reach.high:+.{digits}f}]"
