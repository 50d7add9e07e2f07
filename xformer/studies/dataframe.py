"""A comparison as a pandas table, for a notebook."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from xformer.studies.experiments import compare_experiments
from xformer.studies.study import select
from xformer.studies.table import table_records, table_warnings
from xformer.studies.verdicts import AnalysisPlan


def comparison_frame(
    runs: str | Path | Iterable[str | Path],
    *,
    metric: str | None = None,
    baseline: str | None = None,
    margin: float | None = None,
) -> pd.DataFrame:
    """The table of `xformer compare` with unrounded numbers, one row for each configuration.

    Columns: the settings in which the groups differ; `metric`, `seeds`, `mean` with its 95 % interval `low` to `high`;
    `difference` from the baseline on equal seeds with its interval; `p_holm` (corrected for the comparisons),
    `detectable_difference` (with 80 % power), `seeds_needed` (to show the difference found), `equivalent` and
    `verdict`; `lost_runs`; the budget. Warnings, and the runs that have no value, are in `attrs["notes"]`. Runs of
    several tasks or data sets are compared separately, in rows told apart by the columns `task` and `data`.

    Args:
        runs: run directories, directories of sweeps, patterns, or the name of a study.
        metric: None for the monitored metric on the test part.
        baseline: such as `attention=full`; None for the study's baseline, else `attention=full`, else the first group.

        margin: the margin of equivalence, in units of the metric; None for the study's, if it has one.

    Raises:
        DataError: there are no runs, or none has a value.
        ConfigError: the metric or the baseline is unknown.
    """
    names = [runs] if isinstance(runs, str | Path) else runs
    found, study = select([str(name) for name in names])
    plan = AnalysisPlan()
    if study is not None:
        metric, baseline, plan = metric or study.metric, baseline or study.baseline, study.plan
    if margin is not None:
        plan = replace(plan, margin=margin)
    comparisons = compare_experiments(found, metric, baseline, plan)
    frame = pd.DataFrame([record for comparison in comparisons for record in table_records(comparison)])
    frame.attrs["notes"] = [line for comparison in comparisons for line in table_warnings(comparison)]
    return frame
