"""A comparison as a pandas table, for a notebook."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from xformer.studies.comparison import compare
from xformer.studies.study import select
from xformer.studies.table import table_records, table_warnings


def comparison_frame(
    runs: str | Path | Iterable[str | Path], *, metric: str | None = None, baseline: str | None = None
) -> pd.DataFrame:
    """What `xformer compare` prints, with every digit: a row for each configuration.

    Columns: the settings in which the groups differ; `metric`, `seeds`, `mean` with its 95 % interval `low` to `high`;
    `difference` to the baseline on equal seeds with its interval; `p`, `p_holm` (corrected for the comparisons) and
    `verdict`; `lost_runs`; the budget. Warnings, and the runs that have no value, are in `attrs["notes"]`.

    Args:
        runs: run directories, directories of sweeps, patterns, or the name of a study.
        metric: None for the monitored metric on the test part.
        baseline: such as `attention=full`; None for the study's, else `attention=full`, else the first group.

    Raises:
        DataError: there are no runs, or none has a value.
        ConfigError: the metric or the baseline is not known.
    """
    names = [runs] if isinstance(runs, str | Path) else runs
    found, study = select([str(name) for name in names])
    if study is not None:
        metric, baseline = metric or study.metric, baseline or study.baseline
    comparison = compare(found, metric, baseline)
    frame = pd.DataFrame(table_records(comparison))
    frame.attrs["notes"] = table_warnings(comparison)
    return frame
