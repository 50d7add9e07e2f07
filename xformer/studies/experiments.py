"""A comparison for each experiment, where runs are of several tasks or data sets.

A difference between two tasks or data sets is not the effect of a setting, and Holm's correction applies to the
comparisons that answer one question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from xformer.errors import DataError, XformerError
from xformer.runs.recorded_run import RecordedRun
from xformer.studies.comparison import Comparison, Intervals, compare
from xformer.studies.verdicts import ONE_LOOK, AnalysisPlan

_APART = ("task", "data")


def compare_experiments(
    runs: Sequence[RecordedRun],
    metric: str | None = None,
    baseline: str | None = None,
    plan: AnalysisPlan = ONE_LOOK,
    intervals: Intervals = "corrected",
) -> list[Comparison]:
    """One comparison for each task and data set of the runs, with its own baseline and its own correction.

    With a baseline such as `data=listops` there is a single comparison across them.

    Args:
        runs: all runs, including failed ones.
        metric: as in `compare`; experiments whose runs lack it are left out with a warning.
        baseline: as in `compare`.
        plan: as in `compare`.
        intervals: as in `compare`.

    Raises:
        XformerError: no experiment can be compared.
    """
    parts: dict[tuple[str, ...], list[RecordedRun]] = {}
    for run in runs:
        parts.setdefault(tuple(run.summary.choices.get(key, "-") for key in _APART), []).append(run)
    across = baseline is not None and any(word.startswith(("task=", "data=")) for word in _words(baseline))
    if len(parts) < 2 or across:
        return [compare(runs, metric, baseline, plan, intervals)]
    found: list[Comparison] = []
    failed: dict[str, XformerError] = {}
    for values, members in parts.items():
        experiment = dict(zip(_APART, values, strict=True))
        try:
            found.append(replace(compare(members, metric, baseline, plan, intervals), experiment=experiment))
        except XformerError as error:
            failed[experiment_label(experiment)] = error
    if not found:
        first = next(iter(failed.values()))
        raise type(first)(f"None of {len(failed)} experiments can be compared; {next(iter(failed))}: {first}")
    missing = [f"no table for {name}: {error}" for name, error in failed.items()]
    return [*found[:-1], replace(found[-1], warnings=[*found[-1].warnings, *missing])]


def only(comparisons: Sequence[Comparison], what: str) -> Comparison:
    """The one comparison.

    Raises:
        DataError: there are several.
    """
    if len(comparisons) > 1:
        names = "; ".join(experiment_label(each.experiment) for each in comparisons)
        raise DataError(f"{what} needs runs of one experiment; these are of {len(comparisons)}: {names}.")
    return comparisons[0]


def experiment_label(experiment: Mapping[str, str]) -> str:
    """`task=classification data=listops`."""
    return " ".join(f"{key}={value}" for key, value in experiment.items())


def _words(typed: str) -> list[str]:
    return typed.replace(",", " ").split()
