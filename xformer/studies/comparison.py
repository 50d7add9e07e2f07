"""The comparison of groups of runs with a baseline: means, intervals, paired differences, verdicts, budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from xformer.config.identity import override_value
from xformer.errors import ConfigError, DataError
from xformer.runs.recorded_run import RecordedRun
from xformer.studies.bounded import bounded_interval
from xformer.studies.budget import Budget, spent_budget, unequal_budgets
from xformer.studies.grouping import Difference, RunGroup, differences, group_name, group_runs
from xformer.studies.metric import Metric, metric_bounds
from xformer.studies.mixed_conditions import mixed_conditions
from xformer.studies.simultaneous import simultaneous_intervals
from xformer.studies.statistics import Interval, PairedComparison, paired_comparison
from xformer.studies.trials import TunedVariant, Tuning, tuning_of
from xformer.studies.verdicts import ONE_LOOK, AnalysisPlan, ComparisonVerdict, judge_differences

Intervals = Literal["corrected", "plain", "simultaneous"]
Scale = Literal["parameters", "flops"]


@dataclass(frozen=True)
class ComparisonRow:
    """One group of runs, compared with the baseline: a row of the table.

    Attributes:
        name: the settings in which it differs from the others.
        values: seed -> value of the metric.
        lost: runs of this configuration that started but have no value, and whose seed has no other run with a value.
        difference: against the baseline over common seeds; None for the baseline, or where there are fewer than 2.
        reach: the interval of the difference, of the requested kind; None without a difference or without an interval
            of its test.
        p: the p value, corrected over the table.
        verdict: `better`, `worse`, `equivalent within MARGIN`, `no difference shown`, `baseline`, or the reason why
            there is no verdict.
        test: the full result of the test.
        tuned: the trials that chose the group's setting; None where it was not tuned.
    """

    name: str
    group: RunGroup
    values: Mapping[int | None, float]
    lost: int
    mean: float
    interval: Interval | None
    budget: Budget
    difference: PairedComparison | None = None
    reach: Interval | None = None
    p: float | None = None
    verdict: str = "baseline"
    test: ComparisonVerdict | None = None
    tuned: TunedVariant | None = None


@dataclass(frozen=True)
class Comparison:
    """The comparison of all groups in one metric.

    Attributes:
        intervals: the kind of the intervals of differences. `corrected`: at the level of its test, zero inside if and
            only if no difference is shown; `plain`: 95 % each, not corrected; `simultaneous`: 95 % together.
        experiment: the task and the data of the runs, if runs of several experiments were compared; else empty.
        scale: the measure of size where the runs are of several sizes (`size_sweep.py`).
        tuning: what was tuned for each group; None where nothing was.
    """

    metric: Metric
    baseline: str
    differ: Difference
    rows: Sequence[ComparisonRow]
    left_out: Mapping[str, str]
    warnings: Sequence[str] = field(default_factory=list)
    plan: AnalysisPlan = ONE_LOOK
    intervals: Intervals = "corrected"
    experiment: Mapping[str, str] = field(default_factory=dict)
    scale: Scale = "parameters"
    tuning: Tuning | None = None


def compare(
    runs: Sequence[RecordedRun],
    metric: str | None = None,
    baseline: str | None = None,
    plan: AnalysisPlan = ONE_LOOK,
    intervals: Intervals = "corrected",
) -> Comparison:
    """Compare groups of runs in one metric, each with the baseline.

    Trials of tuning are no part of the groups: they say which runs are, those with the chosen setting of each variant.

    Args:
        runs: all runs, including failed ones and trials.
        metric: the metric; None for the monitored one on the test part.
        baseline: `attention=full`, or several settings; each group is compared with the group that has these settings
            and equals it in every other setting of its name. None for `attention=full` where attention differs, else
            the first group.
        plan: the margin of equivalence, and the numbers of seeds at which the runs are compared.
        intervals: the kind of the intervals of differences; see `Comparison`.

    Raises:
        DataError: no run has a value.
        ConfigError: no group or every group matches the baseline, the metric is unknown, or simultaneous intervals are
            requested although looks are declared.
    """
    tuning = tuning_of(runs)
    runs = [run for run in runs if not run.summary.is_trial]
    runs, superseded = tuning.without_superseded(runs) if tuning else (runs, {})
    if tuning and not runs:
        raise DataError(f"There are {sum(v.trials for v in tuning.variants.values())} trials and no final run yet.")
    chosen = Metric.of(runs, metric)
    used, left_out = _usable(runs, chosen)
    left_out |= superseded
    if not used:
        raise DataError(f"No run has a value of {chosen.name}: " + "; ".join(f"{k}: {v}" for k, v in left_out.items()))
    groups = group_runs(used)
    differ = differences(groups, tuning.keys if tuning else ())
    lost = [run for run in runs if run.name in left_out]
    rows = [_row(group, differ, chosen, lost) for group in groups]
    if tuning:
        rows = [replace(row, tuned=tuning.variant(row.group.runs[0])) for row in rows]
    wanted = _baseline(baseline, rows, differ.named)
    rows = _judged(rows, wanted, differ.named, plan, chosen)
    rows = _with_intervals(rows, intervals, chosen, plan)
    warnings: list[str] = []
    if differ.also:
        warnings.append(f"besides {', '.join(differ.named)}, these settings differ: {', '.join(differ.also)}.")
    lengths = {len(row.values) for row in rows}
    if len(lengths) > 1 or any(set(row.values) != set(rows[0].values) for row in rows):
        warnings.append("the groups do not have the same seeds; differences are over common seeds only.")
    if min(lengths) < 3:
        warnings.append("fewer than 3 seeds in a group: intervals are wide or missing, differences hard to show.")
    for row in rows:
        if row.lost:
            warnings.append(
                f"{row.name}: {row.lost} of {row.lost + len(row.values)} runs have no value; the mean is of the others."
            )
    warnings += _looked(rows, plan) + (_tuning_warnings(rows, tuning) if tuning else [])
    warnings += unequal_budgets({row.name: row.budget for row in rows}) + mixed_conditions(used)
    label = " ".join(f"{key}={value}" for key, value in wanted.items())
    return Comparison(chosen, label, differ, rows, left_out, warnings, plan, intervals, tuning=tuning)


def _usable(runs: Sequence[RecordedRun], metric: Metric) -> tuple[list[RecordedRun], dict[str, str]]:
    """The runs that have a value, and for each other run the reason why it has none."""
    left_out: dict[str, str] = {}
    used: dict[tuple[object, ...], RecordedRun] = {}
    for run in runs:
        value = run.value(metric.name)
        if run.summary.status != "finished":
            left_out[run.name] = f"{run.summary.status}: {run.summary.error or 'no reason is recorded.'}"
        elif value is None:
            left_out[run.name] = f"it has no finite {metric.name}."
        else:
            key = (run.seed, *sorted((k, str(v)) for k, v in run.settings.items()))
            if key in used:
                same = "the same" if used[key].value(metric.name) == value else "a different"
                left_out[used[key].name] = f"repeated with {same} result as {run.name}."
            used[key] = run
    return list(used.values()), left_out


_BROKEN_OFF = ("failed", "interrupted", "running")


def _row(group: RunGroup, differ: Difference, metric: Metric, lost: Sequence[RecordedRun]) -> ComparisonRow:
    values = {run.seed: float(run.value(metric.name) or 0.0) for run in group.runs}
    lost_here = [run for run in lost if run.summary.status in _BROKEN_OFF or _is_without_value(run, metric)]
    lost_here = [run for run in lost_here if run.seed not in values]  # the others were run again, and gave one
    gone = (
        sum(all(_same(run, group, key) for key in differ.named) for run in lost_here)
        if differ.named
        else len(lost_here)
    )
    seeds = list(values.values())
    return ComparisonRow(
        group_name(group, differ.named),
        group,
        values,
        gone,
        sum(seeds) / len(seeds),
        bounded_interval(seeds, metric_bounds(metric.name)),
        spent_budget(group.runs),
    )


def _is_without_value(run: RecordedRun, metric: Metric) -> bool:
    """Whether a run finished without a finite value of the metric."""
    return run.summary.status == "finished" and run.value(metric.name) is None


def _same(run: RecordedRun, group: RunGroup, key: str) -> bool:
    return key in run.settings and RunGroup(run.settings, [run]).get(key) == group.get(key)


def _baseline(typed: str | None, rows: Sequence[ComparisonRow], named: Sequence[str]) -> dict[str, str]:
    """The settings that make a group the baseline."""
    if typed is None:
        first = rows[0].group
        if "attention" in named and any(row.group.get("attention") == "full" for row in rows):
            return {"attention": "full"}
        return {key: first.get(key) for key in named[:1]}
    words = typed.replace(",", " ").split()
    for word in words:
        if "=" not in word:
            meant = [f"{key}={word}" for key in named if any(row.group.get(key) == word for row in rows)]
            offered = f"did you mean {' or '.join(meant)}?" if meant else f"the groups: {_names(rows)}."
            raise ConfigError(f"--baseline {typed} is not of the form KEY=VALUE; {offered}")
    wanted = dict(word.partition("=")[::2] for word in words)
    unknown = [key for key in wanted if key not in named]
    if unknown and any(row.group.get(unknown[0]) != wanted[unknown[0]] for row in rows):
        raise ConfigError(f"--baseline {typed}: the groups do not differ in {unknown[0]}, but in {', '.join(named)}.")
    if not any(all(row.group.get(key) == value for key, value in wanted.items()) for row in rows):
        raise ConfigError(f"--baseline {typed} matches no group; the groups: {_names(rows)}.")
    if len(rows) > 1 and len(unknown) == len(wanted):
        raise ConfigError(f"--baseline {typed} matches every group; the groups differ in {', '.join(named)}.")
    return {key: value for key, value in wanted.items() if key not in unknown}


def _names(rows: Sequence[ComparisonRow]) -> str:
    return "; ".join(row.name for row in rows)


def _judged(
    rows: Sequence[ComparisonRow],
    wanted: Mapping[str, str],
    named: Sequence[str],
    plan: AnalysisPlan,
    metric: Metric,
) -> list[ComparisonRow]:
    by_settings = {tuple(row.group.get(key) for key in named): row for row in rows}
    found: list[ComparisonRow] = []
    for row in rows:
        other = by_settings.get(tuple(wanted.get(key, row.group.get(key)) for key in named))
        if other is row:
            found.append(row)
        elif other is None:
            found.append(replace(row, verdict="no baseline with the same other settings"))
        else:
            common = [seed for seed in row.values if seed in other.values]
            seeds = sorted(common, key=lambda seed: seed or 0)[: plan.pairs(len(common))]
            difference = paired_comparison([row.values[s] for s in seeds], [other.values[s] for s in seeds])
            words = f"no verdict: {len(common)} common seeds"
            if plan.looks and len(common) < plan.looks[0]:
                words += f", the first look is at {plan.looks[0]}"
            found.append(replace(row, difference=difference, verdict=words))
    judged = iter(judge_differences([row.difference for row in found if row.difference], metric.mode, plan))
    return [_with_verdict(row, next(judged)) if row.difference else row for row in found]


def _with_verdict(row: ComparisonRow, test: ComparisonVerdict) -> ComparisonRow:
    return replace(row, p=test.p, verdict=test.verdict, test=test)


def _with_intervals(
    rows: Sequence[ComparisonRow], kind: Intervals, metric: Metric, plan: AnalysisPlan
) -> list[ComparisonRow]:
    """Add to each row the interval of its difference, clipped to the range of the metric's differences."""
    if kind == "simultaneous" and plan.looks:
        raise ConfigError("--intervals simultaneous is not defined with study.looks; use corrected or plain.")
    tests = [row.test for row in rows if row.test]
    if kind == "simultaneous":
        found = simultaneous_intervals([test.difference for test in tests])
    else:
        found = [test.interval if kind == "corrected" else test.difference.interval() for test in tests]
    bounds, each = metric_bounds(metric.name).of_differences, iter(found)
    reaches = [next(each) if row.test else None for row in rows]
    return [replace(row, reach=bounds.clip(reach) if reach else None) for row, reach in zip(rows, reaches, strict=True)]


def _looked(rows: Sequence[ComparisonRow], plan: AnalysisPlan) -> list[str]:
    """A warning if some seeds are not tested because no look is declared at their number."""
    tested = {row.difference.pairs: len(row.values) for row in rows if row.difference}
    declared = ", ".join(map(str, plan.looks))
    return [
        f"looks are declared at {declared} seeds: differences are over the first {pairs} of {available} seeds."
        for pairs, available in tested.items()
        if plan.looks and pairs < available
    ]


def _tuning_warnings(rows: Sequence[ComparisonRow], tuning: Tuning) -> list[str]:
    """What makes the chosen settings of the groups less than the best, or less than equally good."""
    found = [f"{row.name} was not tuned: it has no trials." for row in rows if row.tuned is None]
    tuned = {row.name: row.tuned for row in rows if row.tuned}
    shown = {id(variant) for variant in tuned.values()}
    tuned |= {variant.name: variant for variant in tuning.variants.values() if id(variant) not in shown}
    if len({variant.tried for variant in tuned.values()}) > 1:
        numbers = ", ".join(f"{name} {variant.trials}" for name, variant in tuned.items())
        found.append(f"the groups did not have the same trials ({numbers}): more trials find a better setting.")
    for name, variant in tuned.items():
        unfinished = [setting for setting in variant.settings if setting.unfinished]
        if unfinished:
            named = "; ".join(setting.name for setting in unfinished)
            found.append(f"{name}: {named} could not be chosen, because a trial of it has not finished.")
        if variant.chosen is None:
            found.append(f"{name}: no setting could be chosen: its trials diverged or have not finished.")
        for key, (end, values) in variant.edges().items():
            value = override_value(variant.chosen.values[key] if variant.chosen else None)
            found.append(
                f"{name}: the chosen {key}={value} is the {end} of those that were tried ({values[0]:g} to "
                f"{values[-1]:g}); a better one may lie beyond."
            )
    return found
